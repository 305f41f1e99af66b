"""How much memory a model takes, before it is loaded, and how much there is."""

from __future__ import annotations

import gc
import os
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from engine.errors import UnsupportedModel

FLOATS = ("F64", "F32", "F16", "BF16")
INTEGERS = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}
"""Bytes of a number that is no float, such as a quantiser packs weights in; 1 where not listed."""


def weight_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Bytes of a model's weights in memory: floats as `dtype`, others as they are stored.

    Raises UnsupportedModel where the folder has none, or one is damaged.
    """
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - it is no mapping
                    part = weights.get_slice(name)
                    kind = part.get_dtype()
                    size = dtype.itemsize if kind in FLOATS else INTEGERS.get(kind, 1)
                    total += prod(part.get_shape()) * size
        except (SafetensorError, OSError) as error:
            raise UnsupportedModel(f"{file} cannot be read: {error}") from error
    if not total:
        raise UnsupportedModel(f"{folder} has no weights: no .safetensors file")
    return total


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    available = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    if available:
        return int(available[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def release(device: torch.device) -> None:
    """Give back the memory of what nobody refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
