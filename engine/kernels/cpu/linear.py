"""Products of few rows with a weight in panels."""

from __future__ import annotations

from ctypes import byref

import torch
from torch import Tensor

from engine.kernels.cpu.library import Linear, required
from engine.kernels.cpu.memory import aligned

SMALL = 1 << 18
"""Multiplications of a product that one thread ends sooner than two could meet."""


class PackedWeight:
    """A weight `[outputs, inputs]`, float32 or bfloat16, and a bias `[outputs]`, in panels.

    The kernels must be there: `library` is not None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        kernels = required()
        self.dtype, (self.outputs, self.inputs) = weight.dtype, weight.shape
        self.half = weight.dtype is torch.bfloat16
        self._multiply = kernels.bita_linear
        self._packed = aligned(kernels.bita_packed_bytes(self.half, self.inputs, self.outputs))
        data = self._packed.data_ptr()
        kernels.bita_pack(self.half, weight.data_ptr(), self.inputs, self.outputs, data)
        self._bias = None
        if bias is not None:
            panel = kernels.bita_panel()
            self._bias = torch.zeros(-(-self.outputs // panel) * panel)
            self._bias[: self.outputs] = bias
        bias_data = None if self._bias is None else self._bias.data_ptr()
        self.linear = Linear(data, bias_data, self.inputs, self.outputs)
        self._reference = byref(self.linear)

    @staticmethod
    def takes(weight: Tensor) -> bool:
        """Whether rows of inputs are whole units of 32 bits."""
        return weight.shape[1] * weight.element_size() % 4 == 0

    def multiply(self, x: Tensor, wide: bool = False) -> Tensor:
        """`[..., inputs]` -> `[..., outputs]`, both of the weight's dtype. Raises TypeError.

        wide: whether to leave the sums as they are, float32.
        """
        if x.dtype is not self.dtype or x.shape[-1] != self.inputs:
            raise TypeError(f"{self.inputs} numbers of {self.dtype} a row, not {x.dtype} {x.shape}")
        x = x.contiguous()
        dtype = torch.float32 if wide else self.dtype
        out = torch.empty(*x.shape[:-1], self.outputs, dtype=dtype)
        rows = x.numel() // self.inputs
        threads = torch.get_num_threads() if rows * self.inputs * self.outputs > SMALL else 1
        data = x.data_ptr(), rows, out.data_ptr()
        self._multiply(self.half, wide, self._reference, *data, threads)
        return out
