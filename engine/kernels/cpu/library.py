"""The compiled kernels: built at the first use, kept on disk, called through ctypes.

They are built where they run, with the instructions its processor has. ctypes gives the interpreter
free while they work, so that the server's other threads go on.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
from ctypes import POINTER, c_bool, c_float, c_int, c_int64, c_void_p
from pathlib import Path

from engine.kept import kept_folder
from engine.processor import instructions, is_x86

SOURCE = Path(__file__).with_name("trunk.cpp")
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Bits of 16-bit numbers are read as units of 32; nobody asks for errno. What is fused says so.
    *("-fno-strict-aliasing", "-fno-math-errno", "-ffp-contract=off"),
)
COMPILERS = ("c++", "g++", "clang++")
TIMEOUT = 300
"""Seconds a compiler may take; it takes about four."""
WANTED = "avx2", "fma"
"""Instructions without which these kernels are of no use."""

log = logging.getLogger("bita.engine")


class Linear(ctypes.Structure):
    """`Linear` of linear.h."""

    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("inputs", c_int64),
        ("outputs", c_int64),
    )


class Layer(ctypes.Structure):
    """`Layer` of trunk.cpp."""

    _fields_ = (
        ("input_norm", c_void_p),
        ("query", Linear),
        ("key", Linear),
        ("value", Linear),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("output", Linear),
        ("mlp_norm", c_void_p),
        ("gate", Linear),
        ("up", Linear),
        ("down", Linear),
        ("window", c_int64),
    )


class Trunk(ctypes.Structure):
    """`Trunk` of trunk.cpp."""

    _fields_ = (
        ("num_layers", c_int64),
        ("hidden", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("head_dim", c_int64),
        ("block_size", c_int64),
        ("num_slots", c_int64),
        ("epsilon", c_float),
        ("scaling", c_float),
        ("layers", POINTER(Layer)),
        ("final_norm", c_void_p),
        ("embeddings", c_void_p),
        ("masks", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
    )


class Step(ctypes.Structure):
    """`Step` of trunk.cpp."""

    _fields_ = (
        ("rows", c_int64),
        ("num_masks", c_int64),
        ("num_segments", c_int64),
        ("pieces", c_int64),
        ("columns", c_int64),
        ("threads", c_int64),
        ("token_ids", c_void_p),
        ("mask_rows", c_void_p),
        ("mask_slots", c_void_p),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("blocks", c_void_p),
        ("hidden", c_void_p),
        ("finite", POINTER(c_int64)),
        ("segments", c_void_p),
        ("words", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("workspace", c_void_p),
    )


class DraftHead(ctypes.Structure):
    """`DraftHead` of drafts.h."""

    _fields_ = (
        ("head", Linear),
        ("hidden", Linear),
        ("state", Linear),
        ("out", Linear),
        ("rank", c_int64),
        ("bias", c_void_p),
        ("table", c_void_p),
        ("tokens", c_void_p),
    )


class Level(ctypes.Structure):
    """`Level` of drafts.h."""

    _fields_ = (
        ("rows", c_int64),
        ("width", c_int64),
        ("threads", c_int64),
        ("index", c_void_p),
        ("masks", c_void_p),
        ("path", c_void_p),
        ("before", c_void_p),
        ("hidden", c_void_p),
        ("states", c_void_p),
        ("next_states", c_void_p),
        ("starts", c_void_p),
        ("scales", c_void_p),
        ("temperature", c_float),
        ("best", c_void_p),
        ("shares", c_void_p),
        ("workspace", c_void_p),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels; None where they cannot be built, and the log says why."""
    if not is_x86() or not instructions().issuperset(WANTED):
        log.info("our CPU kernels are not used: they want x86-64 with %s", " and ".join(WANTED))
        return None
    try:
        return _declare(ctypes.CDLL(str(_built())))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        log.warning("our CPU kernels are not used, torch's are: %s", reason.strip()[:500])
        return None


def loaded() -> ctypes.CDLL | None:
    """The kernels where something has asked for `library` before: nobody waits for a compiler."""
    return library() if library.cache_info().currsize else None


def required() -> ctypes.CDLL:
    """The kernels, by who is only there where they are."""
    kernels = library()
    assert kernels is not None
    return kernels


def kernel_folder() -> Path:
    """Where they are kept."""
    return kept_folder("kernels")


def kernel_digest() -> str:
    """Names the kernels of these sources on this processor."""
    digest = hashlib.sha256(" ".join([*FLAGS, *sorted(instructions())]).encode())
    for source in sorted([*SOURCE.parent.glob("*.h"), SOURCE]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _built() -> Path:
    """The library of these sources for this processor. Raises OSError, SubprocessError."""
    built = kernel_folder() / f"{kernel_digest()}.so"
    if built.is_file():
        return built
    compiler, *more = shlex.split(os.environ.get("CXX", "")) or _compiler()
    built.parent.mkdir(parents=True, exist_ok=True)
    fresh = built.with_name(f"{built.name}.{os.getpid()}")
    try:
        subprocess.run(
            [compiler, *FLAGS, *more, "-o", str(fresh), str(SOURCE)],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        fresh.replace(built)  # whole or not at all: another process may build it too
    finally:
        fresh.unlink(missing_ok=True)
    return built


def _compiler() -> list[str]:
    found = [name for name in COMPILERS if shutil.which(name)]
    if not found:
        raise OSError(f"no C++ compiler ({', '.join(COMPILERS)})")
    return found[:1]


def _declare(kernels: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes of the functions that trunk.cpp ends with."""
    signatures = {
        "bita_panel": (c_int64, ()),
        "bita_packed_bytes": (c_int64, (c_bool, c_int64, c_int64)),
        "bita_pack": (None, (c_bool, c_void_p, c_int64, c_int64, c_void_p)),
        "bita_linear": (
            None,
            (c_bool, c_bool, POINTER(Linear), c_void_p, c_int64, c_void_p, c_int),
        ),
        "bita_workspace_bytes": (c_int64, (c_bool, POINTER(Trunk), POINTER(Step))),
        "bita_forward": (None, (c_bool, POINTER(Trunk), POINTER(Step))),
        "bita_commit": (None, (c_bool, POINTER(Trunk), c_int64, c_void_p, c_void_p)),
        "bita_level_bytes": (c_int64, (c_bool, POINTER(DraftHead), POINTER(Level))),
        "bita_noise": (None, (c_int64, c_void_p, c_int64, c_void_p, c_void_p, c_int)),
        "bita_choose": (
            None,
            (c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_void_p, c_int),
        ),
        "bita_rank": (None, (c_bool, POINTER(DraftHead), POINTER(Level))),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(kernels, name)
        function.restype, function.argtypes = result, arguments
    return kernels
