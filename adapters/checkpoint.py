"""A few tensors out of a model's checkpoint, whatever files it is spread over.

Read are safetensors, and PyTorch's `.bin` and `.pt` without running what is pickled in them; as
one file, as a folder, or as shards with Hugging Face's index. Of a checkpoint of many gigabytes
only the tensors asked for are loaded.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapters.errors import AdapterFormatError

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
KINDS = (".safetensors", ".bin", ".pt")
# What Hugging Face's Trainer leaves beside the weights.
NOT_WEIGHTS = (
    "training_args.bin",
    "optimizer.bin",
    "optimizer.pt",
    "scheduler.bin",
    "scheduler.pt",
)

Wanted = Callable[[str], bool]


def read_tensors(source: Path, wanted: Wanted) -> dict[str, Tensor]:
    """The tensors of `source`, a file or a folder, whose names are wanted: float32, on the CPU.

    Raises AdapterFormatError, naming the file, where nothing of the kind is there, a file is
    damaged or needs code to be unpickled, or a value is not finite.
    """
    found: dict[str, Tensor] = {}
    for file in _files(source, wanted):
        tensors = _safetensors(file, wanted) if file.suffix == KINDS[0] else _torch(file, wanted)
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or tensor.layout is not torch.strided:
                raise AdapterFormatError(f"{file}: {name} is no plain tensor of floats")
            found[name] = tensor.detach().float()
            if not torch.isfinite(found[name]).all():
                raise AdapterFormatError(f"{file}: {name} has values that are not finite")
    return found


def _files(source: Path, wanted: Wanted) -> list[Path]:
    """The files that may hold what is wanted."""
    if source.is_file():
        if source.suffix not in KINDS:
            raise AdapterFormatError(f"{source} is none of {', '.join(KINDS)}")
        return [source]
    if not source.is_dir():
        raise AdapterFormatError(f"there is no file or folder {source}")
    for name in INDEXES:
        if (source / name).is_file():
            return _shards(source / name, wanted)
    for kind in KINDS:
        files = [f for f in source.iterdir() if f.suffix == kind and f.name not in NOT_WEIGHTS]
        if files:
            return sorted(files)
    raise AdapterFormatError(f"{source} holds no weights: no {', '.join(KINDS)} file")


def _shards(index: Path, wanted: Wanted) -> list[Path]:
    """The shards that an index gives for what is wanted; they lie beside it."""
    try:
        names = {
            str(f) for t, f in json.loads(index.read_text())["weight_map"].items() if wanted(t)
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AdapterFormatError(f"{index} is no index of shards ({error})") from error
    for name in names:
        if Path(name).name != name or Path(name).suffix not in KINDS:
            raise AdapterFormatError(f"{index} names {name!r}, which is no weights file beside it")
        if not (index.parent / name).is_file():
            raise AdapterFormatError(f"{index.parent / name} is missing: {index.name} names it")
    return sorted(index.parent / name for name in names)


def _safetensors(file: Path, wanted: Wanted) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as weights:
            return {name: weights.get_tensor(name) for name in weights.keys() if wanted(name)}  # noqa: SIM118
    except SafetensorError as error:
        raise AdapterFormatError(f"{file} is damaged, or no safetensors file: {error}") from error


def _torch(file: Path, wanted: Wanted) -> dict[str, Tensor]:
    try:
        # A zip archive can be mapped, so that only the tensors taken are read from the disk.
        mapped = zipfile.is_zipfile(file)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        raise AdapterFormatError(
            f"{file} is damaged, or holds more than plain tensors; pickled code is never run"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise AdapterFormatError(f"{file} is damaged, or no PyTorch file") from error
    if not isinstance(content, dict):
        raise AdapterFormatError(f"{file} holds no tensors by name")
    named = {str(name): value for name, value in content.items() if wanted(str(name))}
    if not all(isinstance(value, Tensor) for value in named.values()):
        raise AdapterFormatError(f"{file} holds {', '.join(sorted(named))}, but not as tensors")
    return named
