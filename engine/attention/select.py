"""Which backend computes attention."""

from __future__ import annotations

import torch

from engine.attention.interface import Backend
from engine.attention.invariant import InvariantStep
from engine.attention.sdpa import SdpaStep
from engine.errors import EngineError
from engine.kernels import usable


def pick_backend(name: str, device: torch.device, invariant: bool = False) -> Backend:
    """`sdpa`, torch's own attention, or `triton`, our kernels.

    invariant: one whose rows do not depend on each other, whatever the name.

    Raises EngineError for another name, and where the kernels cannot run.
    """
    if invariant:
        return InvariantStep
    if name == "sdpa":
        return SdpaStep
    if name != "triton":
        raise EngineError(f"attention must be sdpa or triton, not {name}")
    if not usable(device):
        raise EngineError(f"attention by triton takes a GPU and the triton package, not {device}")
    from engine.attention.paged import PagedStep

    return PagedStep
