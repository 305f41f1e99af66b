"""Triton kernels. Only `usable` may be imported without Triton: it is an optional dependency."""

from importlib.util import find_spec

import torch


def usable(device: torch.device) -> bool:
    """Whether tensors of this device can go through Triton kernels here."""
    return device.type == "cuda" and find_spec("triton") is not None
