"""Memory as the kernels want it."""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 8
"""Bytes of an int64."""


def aligned(size: int) -> Tensor:
    """So many bytes at an address that whole vectors are read from, uint8 `[size]`."""
    spare = torch.empty(size + 63, dtype=torch.uint8)
    return spare[-spare.data_ptr() % 64 :][:size]


class Workspace:
    """Memory that a call works in, kept for the next one."""

    def __init__(self) -> None:
        self._memory = aligned(0)

    def of(self, size: int) -> int:
        """The address of at least so many bytes."""
        if size > len(self._memory):
            self._memory = aligned(size)
        return self._memory.data_ptr()
