"""Which backend serves a device."""

from __future__ import annotations

import torch

from engine.attention.interface import Backend
from engine.attention.sdpa import SdpaStep
from engine.kernels import usable


def pick_backend(device: torch.device) -> Backend:
    """Our Triton kernels on CUDA where Triton is installed, torch's own attention elsewhere."""
    if usable(device):
        from engine.attention.paged import PagedStep

        return PagedStep
    return SdpaStep
