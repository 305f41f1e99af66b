"""The Triton kernels against the oracle: in Triton's interpreter here, compiled where a GPU is."""

from dataclasses import replace

import pytest
import torch

from benchmarks.gpu.cases import Shape, largest_error, named_cases, real_shapes

pytest.importorskip("triton")
from engine.attention import paged, tables
from engine.attention.paged import PagedStep
from engine.attention.tables import Tiling
from engine.kernels.commit import copy_slots

GPU = torch.cuda.is_available()
on_gpu = pytest.mark.skipif(not GPU, reason="needs a GPU")
SMALL = Shape(
    heads=4,
    kv_heads=2,
    head_dim=12,
    block_size=8,
    past=75,
    prefill=40,
    device="cuda" if GPU else "cpu",
)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short past has several parts, and 40 rows are a prefill chunk."""
    monkeypatch.setattr(tables, "PLAIN", Tiling(16, 32))
    monkeypatch.setattr(tables, "TREE", Tiling(64, 64))
    monkeypatch.setattr(tables, "LONGEST_TREE", 60)
    monkeypatch.setattr(paged, "JOINED", 256)  # the interpreter's time goes by programs


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("name", ["window", "chunk", "softcap, window, sinks"])
def test_the_kernel_agrees_with_the_oracle(name: str) -> None:
    case = named_cases(window=20, chunk=32)[name]
    assert largest_error(PagedStep, SMALL, case) < 1e-5


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (2, 2), (3, 1)])
def test_any_grouping_of_heads(heads: int, kv_heads: int) -> None:
    shape = replace(SMALL, heads=heads, kv_heads=kv_heads)
    assert largest_error(PagedStep, shape, named_cases(20, 32)["plain"]) < 1e-5


@pytest.mark.usefixtures("small_tiles")
def test_sixteen_bit_sums_in_float32() -> None:
    shape = replace(SMALL, dtype=torch.float16)
    assert largest_error(PagedStep, shape, named_cases(20, 32)["plain"]) < 5e-3


def test_commit_copies_all_layers_at_once() -> None:
    keys, values = (torch.randn(3, 20, 2, dim, device=SMALL.device) for dim in (6, 5))
    expected = [kv.clone() for kv in (keys, values)]
    source, target = torch.tensor([[17, 12, 19], [3, 0, 7]], device=SMALL.device)
    for kv in expected:
        kv[:, target] = kv[:, source]
    copy_slots(keys, values, source, target)
    assert torch.equal(keys, expected[0])
    assert torch.equal(values, expected[1])


@on_gpu
@pytest.mark.parametrize("model", real_shapes())
@pytest.mark.parametrize("name", named_cases(1, 1))
def test_the_kernel_agrees_with_the_oracle_at_real_shapes(model: str, name: str) -> None:
    case = named_cases(window=1000, chunk=512)[name]
    assert largest_error(PagedStep, real_shapes()[model], case) < 1e-4
