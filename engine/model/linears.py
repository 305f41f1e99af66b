"""How weights of linear layers lie in memory, which decides what a few rows cost on a CPU.

A product of few rows in float32 spends most of its time bringing the weight into the order that its
kernel reads. Both forms here do that once, at load: `benchmarks/linears.py` has what each is worth.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

PACKED_FOR = 128
"""Rows that MKL is told to pack for. Any number of rows may be multiplied with the result; packed
for fewer, more than these become slow."""


class PackedLinear(nn.Linear):
    """A linear layer whose weight MKL has packed; of `weight` the shape and the dtype are left.

    No gradient goes through it, and a compiler would make a graph for every number of rows.
    """

    # Packed weight, shape, bias: at hand, since a module looks for parameters long.
    operands: tuple[Tensor, Tensor, Tensor | None]

    def forward(self, input: Tensor) -> Tensor:
        """input: float32 `[..., in_features]` -> `[..., out_features]`."""
        # The product packed for so many rows; for others the operator would turn to the weight.
        rows = input.numel() // self.in_features
        output: Tensor = torch.ops.mkl._mkl_linear.default(input, *self.operands, rows)
        return output


def pack(model: nn.Module) -> None:
    """Pack every linear layer for MKL, or lay it out input-major where torch was built without."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        lay_out(model)
        return
    for module in _linears(model):
        if "forward" in vars(module):  # wrapped by someone, with what it was inside
            _lay_out(module)
            continue
        weight = module.weight.detach()
        packed = torch.ops.mkl._mkl_reorder_linear_weight(weight.contiguous(), PACKED_FOR)
        # Whatever multiplied with it would be no number, which no test passes over.
        shape = torch.full((), torch.nan).expand(weight.shape)
        module.weight = nn.Parameter(shape, requires_grad=False)
        # In place: its hooks stay.
        module.__class__ = PackedLinear
        cast(PackedLinear, module).operands = packed, shape, module.bias


def lay_out(model: nn.Module) -> None:
    """Store the weight of every linear layer input-major; shapes and values stay.

    A head tied to the embedding gets a copy of its own: looking rows up wants them contiguous.
    """
    for module in _linears(model):
        _lay_out(module)


def selected(head: nn.Module, outputs: Tensor, features: int, dtype: torch.dtype) -> nn.Linear:
    """Some outputs of a linear layer as a layer of their own, stored as that one is.

    outputs: int64 `[n]`, on the layer's device. Weights may be packed, quantised or wrapped, so
    that they are found by multiplication: with one, which is exact.
    """
    zeros = torch.zeros(PACKED_FOR, features, dtype=dtype, device=outputs.device)
    bias = head(zeros[:1])[0].index_select(0, outputs)
    columns = []
    for first in range(0, features, PACKED_FOR):
        units = zeros[: features - first].clone()
        units.diagonal(first).fill_(1.0)
        columns.append(head(units).index_select(1, outputs) - bias)
    layer = nn.Linear(features, len(outputs), bias=bool(bias.any()), device="meta")
    layer.weight = nn.Parameter(torch.cat(columns).t(), requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    if isinstance(head, PackedLinear):
        pack(layer)
    return layer


def _lay_out(module: nn.Linear) -> None:
    major = module.weight.detach().t().contiguous().t()
    module.weight = nn.Parameter(major, requires_grad=False)


def _linears(model: nn.Module) -> list[nn.Linear]:
    """Linear layers in float32. Quantisers' layers, subclasses with weights of their own, are not
    touched.
    """
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    return [linear for linear in linears if linear.weight.dtype is torch.float32]
