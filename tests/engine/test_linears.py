"""Packed linear layers multiply as usual ones do; input-major ones let gradients through."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.kernels.cpu.library import library
from engine.model import linears
from engine.model.linears import (
    MklLinear,
    NativeLinear,
    OneDnnLinear,
    PackedLinear,
    lay_out,
    pack,
    packing,
    selected,
)
from engine.processor import is_x86

KINDS = [
    pytest.param(
        MklLinear,
        torch.float32,
        id="mkl",
        marks=pytest.mark.skipif(
            not torch.backends.mkl.is_available(), reason="this build of torch comes without MKL"
        ),
    ),
    *(
        pytest.param(
            OneDnnLinear,
            dtype,
            id=name,
            marks=pytest.mark.skipif(
                not (is_x86() and torch.backends.mkldnn.is_available()),
                reason="no oneDNN for x86 here",
            ),
        )
        for name, dtype in (("onednn", torch.float32), ("onednn-bf16", torch.bfloat16))
    ),
    *(
        pytest.param(
            NativeLinear,
            dtype,
            id=name,
            marks=pytest.mark.skipif(library() is None, reason="our kernels cannot be built here"),
        )
        for name, dtype in (("native", torch.float32), ("native-bf16", torch.bfloat16))
    ),
]


def model(bias: bool = False, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Linear(24, 40, bias=bias, dtype=dtype)
    return nn.Sequential(first, nn.Linear(40, 8, dtype=dtype)).requires_grad_(False)


@pytest.mark.parametrize(("kind", "dtype"), KINDS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 24), (1, 1, 24), (7, 24), (2, 3, 24), (300, 24), (0, 24)])
@torch.inference_mode()
def test_packed_layers_give_what_the_usual_ones_give(
    shape: tuple[int, ...],
    bias: bool,
    kind: type[PackedLinear],
    dtype: torch.dtype,
) -> None:
    usual, packed = model(bias, dtype), model(bias, dtype)
    pack(packed, kind)
    assert [type(layer) for layer in packed] == [kind, kind]
    x = torch.randn(shape, dtype=dtype)
    torch.testing.assert_close(packed(x), usual(x))


@pytest.mark.parametrize(("kind", "dtype"), KINDS)
@torch.inference_mode()
def test_rows_that_lie_apart_are_multiplied_alike(
    kind: type[PackedLinear], dtype: torch.dtype
) -> None:
    usual, packed = model(dtype=dtype), model(dtype=dtype)
    pack(packed, kind)
    x = torch.randn(24, 5, dtype=dtype).t()
    torch.testing.assert_close(packed(x), usual(x))


@pytest.mark.parametrize(("kind", "dtype"), KINDS)
def test_what_is_left_of_a_packed_weight_has_its_shape_and_poisons_whoever_multiplies_it(
    kind: type[PackedLinear], dtype: torch.dtype
) -> None:
    packed = model(dtype=dtype)
    pack(packed, kind)
    weight = packed[0].weight
    assert (weight.shape, weight.dtype) == ((40, 24), dtype)
    assert weight.isnan().all()
    assert weight.untyped_storage().nbytes() == weight.itemsize


@torch.inference_mode()
def test_forward_hooks_stay() -> None:
    packed = model()
    packed[0].register_forward_hook(lambda _, __, output: output * 2)
    x = torch.randn(3, 24)
    expected = packed(x)
    pack(packed)
    torch.testing.assert_close(packed(x), expected)


@torch.inference_mode()
def test_a_layer_whose_forward_somebody_has_wrapped_keeps_its_weight() -> None:
    wrapped = model()
    inner = wrapped[0].forward
    wrapped[0].forward = lambda x: inner(x) * 2  # type: ignore[method-assign]
    x = torch.randn(3, 24)
    expected = wrapped(x)
    pack(wrapped)
    torch.testing.assert_close(wrapped(x), expected)


@pytest.mark.parametrize(
    ("processor", "kind"),
    [("Intel(R) Xeon(R) CPU", MklLinear), ("AMD EPYC", OneDnnLinear), ("", OneDnnLinear)],
)
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="no MKL in this build of torch")
def test_mkl_packs_float32_on_its_makers_processors(
    processor: str, kind: type[PackedLinear], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linears, "is_x86", lambda: True)
    monkeypatch.setattr(linears, "processor_name", lambda: processor)
    assert packing(torch.float32, native=False) is kind
    assert packing(torch.bfloat16, native=False) is not MklLinear


def test_what_no_compiler_gets_through_is_not_packed_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linears, "is_x86", lambda: True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    for processor, expected in (("Intel", nn.Linear), ("AMD EPYC", OneDnnLinear)):
        monkeypatch.setattr(linears, "processor_name", lambda name=processor: name)
        layers = model()
        pack(layers, compiled=True)
        assert [type(layer) for layer in layers] == [expected, expected]


class Quantised(nn.Linear):
    """Stands for a layer whose weight is not what it seems."""


def test_other_numbers_and_other_kinds_of_layers_are_left_alone() -> None:
    half, own = model(dtype=torch.float16), nn.Sequential(Quantised(4, 4))
    for layers in (half, own):
        kinds, weights = [type(layer) for layer in layers], [layer.weight for layer in layers]
        pack(layers)
        assert [type(layer) for layer in layers] == kinds
        assert all(layer.weight is w for layer, w in zip(layers, weights, strict=True))


def test_without_any_library_weights_are_laid_out_input_major(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(linears, "library", lambda: None)
    layers = model()
    pack(layers)
    assert type(layers[0]) is nn.Linear
    assert layers[0].weight.stride() == (1, 40)


def test_gradients_flow_through_layers_that_are_laid_out() -> None:
    usual, major = model(), model()
    lay_out(major)
    gradients: list[Tensor] = []
    for layers in (usual, major):
        x = torch.ones(3, 24, requires_grad=True)
        layers(x).square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


OUTPUTS = torch.tensor([0, 3, 4, 39])


class Wrapped(nn.Module):
    """A layer whose weight nobody else can look at."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.answer = inner.forward

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(x)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["usual", "packed", "wrapped", "input-major"])
@torch.inference_mode()
def test_some_outputs_of_a_layer_are_a_layer_of_their_own(kind: str, bias: bool) -> None:
    wide = nn.Linear(200, 40, bias=bias)  # more inputs than are asked about at once
    x = torch.randn(5, 200)
    expected = wide(x)[:, OUTPUTS]
    head: nn.Module = wide
    if kind == "packed":
        pack(wide)
    if kind == "input-major":
        lay_out(wide)
    if kind == "wrapped":
        head = Wrapped(wide)
    part = selected(head, OUTPUTS, 200, torch.float32)
    assert (part.in_features, part.out_features) == (200, 4)
    assert type(part) is (type(wide) if kind == "packed" else nn.Linear)
    torch.testing.assert_close(part(x), expected)


@torch.inference_mode()
def test_a_selected_weight_is_the_very_same_in_16_bit() -> None:
    wide = nn.Linear(24, 40, bias=False, dtype=torch.bfloat16)
    part = selected(wide, OUTPUTS, 24, torch.bfloat16)
    assert torch.equal(part.weight, wide.weight[OUTPUTS])
