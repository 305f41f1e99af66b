"""How weights of linear layers lie in memory, which decides what a few rows cost on a CPU.

A product of few rows spends most of its time bringing the weight into the order that its kernel
reads. All forms here do that once, at load: `benchmarks/linears.py` has what each is worth.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from engine.kernels.cpu.library import library
from engine.kernels.cpu.linear import PackedWeight
from engine.processor import is_x86, processor_name

PACKED_FOR = 128
"""Rows that weights are packed for. Any number of rows may be multiplied with the result; packed
for fewer, more than these become slow."""


class PackedLinear(nn.Linear):
    """A linear layer whose weight lies as a library's kernel reads it; shape and dtype are left.

    No gradient goes through it.
    """

    @staticmethod
    def takes(weight: Tensor) -> bool:
        """Whether the library multiplies with weights of this shape."""
        return True

    @abstractmethod
    def keep(self, weight: Tensor) -> None:
        """Keep a weight, `[out_features, in_features]`, in the order that the kernel reads."""


class MklLinear(PackedLinear):
    """float32, packed by MKL. A compiler would make a graph for every number of rows."""

    # Packed weight, shape, bias: at hand, since a module looks for parameters long.
    operands: tuple[Tensor, Tensor, Tensor | None]

    def keep(self, weight: Tensor) -> None:
        """As `PackedLinear.keep`."""
        packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, PACKED_FOR)
        self.operands = packed, _nowhere(weight), self.bias

    def forward(self, input: Tensor) -> Tensor:
        """input: float32 `[..., in_features]` -> `[..., out_features]`."""
        # The product packed for so many rows; for others the operator would turn to the weight.
        rows = input.numel() // self.in_features
        output: Tensor = torch.ops.mkl._mkl_linear.default(input, *self.operands, rows)
        return output


class OneDnnLinear(PackedLinear):
    """float32 or bfloat16, packed by oneDNN."""

    operands: tuple[Tensor, Tensor | None]

    def keep(self, weight: Tensor) -> None:
        """As `PackedLinear.keep`."""
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)
        self.operands = packed, self.bias

    def forward(self, input: Tensor) -> Tensor:
        """input: of the weight's dtype, `[..., in_features]` -> `[..., out_features]`."""
        multiply = _opaque if torch.compiler.is_compiling() else _multiply
        output: Tensor = multiply(input, *self.operands)
        return output


class NativeLinear(PackedLinear):
    """float32 or bfloat16, by our own kernels: no row's result depends on the rows beside it."""

    packed: PackedWeight

    @staticmethod
    def takes(weight: Tensor) -> bool:
        """As `PackedLinear.takes`."""
        return PackedWeight.takes(weight)

    def keep(self, weight: Tensor) -> None:
        """As `PackedLinear.keep`."""
        self.packed = PackedWeight(weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """input: of the weight's dtype, `[..., in_features]` -> `[..., out_features]`."""
        return self.packed.multiply(input)


def _multiply(input: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise.default(
        input, packed, bias, "none", [], None
    )
    return output


# The same for a compiled graph, which would look into the operator above. Registered without
# `custom_op`, whose wrapping takes longer than a small product.
_library = torch.library.Library("bita_linears", "DEF")
_library.define("multiply(Tensor input, Tensor packed, Tensor? bias) -> Tensor")
for _key in ("CPU", "MkldnnCPU"):
    _library.impl("multiply", _multiply, _key)


def _shape(input: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return input.new_empty(*input.shape[:-1], packed.shape[0])


torch.library.register_fake("bita_linears::multiply", _shape)

_opaque = torch.ops.bita_linears.multiply.default


def packing(
    dtype: torch.dtype, native: bool = True, compiled: bool = False
) -> type[PackedLinear] | None:
    """What multiplies few rows of this dtype fastest here; None for torch's own way.

    native: whether our kernels may. compiled: whether the model will be, which only oneDNN's layers
    can. MKL is at its best on its maker's processors: on an AMD one, oneDNN takes a quarter of its
    time (`benchmarks/linears.py`). Elsewhere than on x86 none was measured.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    if native and not compiled and library() is not None:
        return NativeLinear
    if not is_x86() or not torch.backends.mkldnn.is_available():
        return None
    if dtype is torch.bfloat16:
        return OneDnnLinear if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
    mkl = torch.backends.mkl.is_available() and "Intel" in processor_name()
    if mkl:
        return None if compiled else MklLinear
    return OneDnnLinear


def pack(
    model: nn.Module,
    kind: type[PackedLinear] | None = None,
    native: bool = True,
    compiled: bool = False,
) -> None:
    """Pack every linear layer, or lay it out input-major where it cannot be.

    kind: by which library; `packing` says it by itself. native, compiled: as `packing`'s.
    """
    for module in _linears(model):
        packed_kind = kind or packing(module.weight.dtype, native, compiled)
        # One that somebody has wrapped keeps what it was inside.
        if packed_kind is None or "forward" in vars(module) or not packed_kind.takes(module.weight):
            _lay_out(module)
            continue
        weight = module.weight.detach()
        # In place: its hooks stay.
        module.__class__ = packed_kind
        cast(PackedLinear, module).keep(weight.contiguous())
        module.weight = nn.Parameter(_nowhere(weight), requires_grad=False)


def _nowhere(weight: Tensor) -> Tensor:
    """A weight's shape. What is multiplied with it is no number, which no test passes over."""
    return torch.full((), torch.nan, dtype=weight.dtype).expand(weight.shape)


def lay_out(model: nn.Module) -> None:
    """Store the weight of every float32 linear layer input-major; shapes and values stay.

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
        pack(layer, type(head))
    return layer


def _lay_out(module: nn.Linear) -> None:
    if module.weight.dtype is not torch.float32:  # in other dtypes it is read as it usually lies
        return
    major = module.weight.detach().t().contiguous().t()
    module.weight = nn.Parameter(major, requires_grad=False)


def _linears(model: nn.Module) -> list[nn.Linear]:
    """Quantisers' layers, subclasses with weights of their own, are not touched."""
    return [module for module in model.modules() if type(module) is nn.Linear]
