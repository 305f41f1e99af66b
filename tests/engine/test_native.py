"""Our CPU kernels beside torch's operations, and what happens where they cannot be used."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.projection import LogitRule
from engine.batch import ForwardBatch, SegmentPlan
from engine.kernels.cpu import library as kernels
from engine.kernels.cpu.library import library
from engine.model import loader
from engine.model.build import Sizes, build_runner
from engine.model.linears import NativeLinear, pack
from engine.model.loader import load_model
from engine.model.native import NativeRunner, is_native
from engine.model.native_drafts import NativeDraftHead
from engine.model.runner import ModelRunner
from engine.sampling import sampler
from engine.speculation.bita import Branches, DraftHead, MaskGroup, Parent
from engine.speculation.tree import TreeTopology
from models import DEFAULT_MODEL
from tests import factories

needs_kernels = pytest.mark.skipif(library() is None, reason="our CPU kernels cannot be built here")
PROMPTS, MASKS, BLOCK = 5, 3, 4
SIZES = Sizes(
    num_blocks=80,
    block_size=BLOCK,
    adapter_slots=2,
    max_prompts=PROMPTS,
    max_masks=MASKS,
    step_rows=256,
    max_segments=8,
)


def runners(
    architecture: str, dtype: torch.dtype = torch.float32, rank: int = 6
) -> tuple[ModelRunner, ModelRunner]:
    """Torch's and ours, of one random model, with an adapter in the second slot."""
    made = []
    for native in (False, True):
        model = factories.tiny_model(architecture).to(dtype)
        if native:
            pack(model, NativeLinear)
        loaded = replace(factories.load(model, architecture), dtype=dtype, native=native)
        runner = build_runner(loaded, SIZES, "sdpa")
        adapter = factories.random_adapter(model, prompts=PROMPTS, masks=MASKS, rank=rank)
        runner.set_adapter(1, adapter.prompt_kv.to(dtype), adapter.mask_embeddings.to(dtype))
        generator = torch.Generator().manual_seed(0)
        for kv in (runner.storage.keys, runner.storage.values):
            past = kv[:, : SIZES.num_blocks * BLOCK]
            past.copy_(torch.randn(past.shape, generator=generator))
        made.append(runner)
    assert [type(runner) for runner in made] == [ModelRunner, NativeRunner]
    return made[0], made[1]


def plans(seed: int) -> list[SegmentPlan]:
    """Plain decoding, trees with masks and without, and prompts in chunks, behind random pasts."""
    rng = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=rng))

    bush = TreeTopology((-1, 0, 0, 1, 1, 2), (0, 0, 1, 0, 1, 0), (3, 0, 1, 2, 0, 3))
    chain = TreeTopology((*range(-1, 40),), (0,) * 41, (0,) * 41)
    trees = [TreeTopology.root(0), TreeTopology.root(MASKS), bush, chain, None, bush]
    made = []
    for tree, causal in zip(trees, (0, 0, 0, 3, 37, 11), strict=True):
        past = number(0, 30)
        count = -(-past // BLOCK)
        blocks = torch.randperm(SIZES.num_blocks, generator=rng)[:count].tolist()
        made.append(
            SegmentPlan(
                [number(0, 128) for _ in range(causal)],
                None if tree is None else tree.fill_with(number(0, 128)),
                past,
                blocks,
                number(0, 2),
            )
        )
    return made


def batch(runner: ModelRunner, plans: list[SegmentPlan]) -> ForwardBatch:
    return ForwardBatch.build(plans, BLOCK, runner.storage.scratch_block, MASKS, 256)


@needs_kernels
@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Qwen2", "Qwen3"])
@pytest.mark.parametrize("seed", range(3))
def test_a_step_is_that_of_torchs_operations(architecture: str, seed: int) -> None:
    theirs, ours = runners(architecture)
    step = batch(ours, plans(seed))
    expected, found = theirs.execute(step), ours.execute(step)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.hidden, expected.hidden, rtol=1e-4, atol=1e-4)
    assert found.finite
    rows = torch.from_numpy(step.scratch_slots)
    for mine, yours in zip(
        (ours.storage.keys, ours.storage.values),
        (theirs.storage.keys, theirs.storage.values),
        strict=True,
    ):
        torch.testing.assert_close(mine[:, rows], yours[:, rows], rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("architecture", ["Llama", "Qwen3"])
def test_sixteen_bit_is_no_further_from_float32_than_torchs(architecture: str) -> None:
    exact, _ = runners(architecture)
    theirs, ours = runners(architecture, torch.bfloat16)
    step = batch(ours, plans(0))
    truth = exact.execute(step).logits
    errors = [(runner.execute(step).logits - truth).abs().mean() for runner in (theirs, ours)]
    assert errors[1] < 1.2 * errors[0]


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_its_company(dtype: torch.dtype) -> None:
    _, ours = runners("Llama", dtype)
    made = plans(1)
    together = ours.execute(batch(ours, made)).logits
    first = 0
    for plan in made:
        if plan.tree is None:
            continue
        alone = ours.execute(batch(ours, [plan])).logits
        assert torch.equal(alone, together[first : first + len(alone)])
        first += len(alone)


@needs_kernels
def test_what_is_committed_is_what_torch_would_commit() -> None:
    theirs, ours = runners("Llama")
    step = batch(ours, plans(0))
    source = step.scratch_slots[[0, 5, 9]].tolist()
    for runner in (theirs, ours):
        runner.execute(step)
        runner.commit(source, [2, 77, 3])
        runner.commit([], [])
    torch.testing.assert_close(ours.storage.keys, theirs.storage.keys, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.storage.values, theirs.storage.values, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("rank", [0, 6, 40])
@pytest.mark.parametrize("drafted", [0, 50])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drafts_are_ranked_as_by_torchs_operations(
    rank: int, drafted: int, temperature: float
) -> None:
    theirs, ours = runners("Llama", rank=rank)
    adapter = factories.random_adapter(theirs.model, masks=MASKS, rank=rank, drafted=drafted)
    heads = [r.draft_head(adapter.draft_tokens, adapter.successor) for r in (theirs, ours)]
    assert [type(head) for head in heads] == [DraftHead, NativeDraftHead]
    torch.manual_seed(0)
    keys: list[Any] = [(7, position) if temperature else None for position in range(MASKS)]
    groups = [
        MaskGroup(torch.randn(size, theirs.mask_embeddings.shape[1]), token, keys, temperature)
        for size, token in ((3, 17), (2, 90))
    ]
    expected, found = (Branches(groups, [0.7, 1.0, 1.3], head) for head in heads)
    parents = [Parent(0, 17, 0), Parent(1, 90, 0)]
    for _ in range(2):
        tokens, shares = expected.rank(parents, 4)
        mine, my_shares = found.rank(parents, 4)
        assert mine == tokens
        torch.testing.assert_close(torch.tensor(my_shares), torch.tensor(shares))
        parents = [
            Parent(parent.group, token, number)
            for number, (parent, row) in enumerate(zip(parents, tokens, strict=True))
            for token in row[:3]
        ]


@needs_kernels
@pytest.mark.parametrize("vocab", [1, 7, 130, 4096])
def test_noise_and_what_is_chosen_with_it_are_torchs(
    vocab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(vocab)
    tokens = torch.randperm(5000, generator=generator)[:vocab]
    logits = torch.randn(6, vocab, generator=generator)
    logits[1:4, : vocab // 2] = -torch.inf
    keys: list[Any] = [(0, 0), None, (-3, 7), (1 << 62, 90_000), None, (5, 5)]
    found = sampler.noise([k for k in keys if k], tokens), sampler.choose(logits, keys)
    monkeypatch.setattr(sampler, "loaded", lambda: None)
    expected = sampler.noise([k for k in keys if k], tokens), sampler.choose(logits, keys)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=1e-6)
    assert found[1] == expected[1]


@needs_kernels
def test_logits_that_a_model_rescales_are_ranked_by_torch() -> None:
    _, ours = runners("Llama")
    ours.logit_rule = LogitRule(2.0, None, None)
    assert isinstance(ours.draft_head(None, None), DraftHead)


@needs_kernels
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "granite"),
        ("hidden_act", "gelu"),
        ("rope_parameters", {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
    ],
)
def test_what_the_kernels_do_not_know_is_left_to_torch(field: str, value: Any) -> None:
    model = factories.tiny_model("Llama")
    pack(model, NativeLinear)
    loaded = factories.load(model, "Llama")
    assert is_native(loaded)
    assert not is_native(replace(loaded, ranks=2))
    setattr(model.config, field, value)
    assert not is_native(loaded)


@needs_kernels
def test_a_layer_that_somebody_has_wrapped_keeps_the_model_from_the_kernels() -> None:
    model = factories.tiny_model("Llama")
    layer = model.model.layers[1].mlp.up_proj
    inner = layer.forward
    layer.forward = lambda x: inner(x) * 2
    pack(model, NativeLinear)
    assert not is_native(factories.load(model, "Llama"))


@needs_kernels
def test_the_loader_takes_them_unless_told_otherwise() -> None:
    assert load_model(DEFAULT_MODEL, "cpu").native
    assert not load_model(DEFAULT_MODEL, "cpu", native=False).native
    assert not load_model(DEFAULT_MODEL, "cpu", compiled=True).native
    assert not load_model(DEFAULT_MODEL, "cpu", trained=True).native


@needs_kernels
def test_kernels_that_give_other_tokens_than_generate_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loader, "serves_natively", lambda config: False)
    with caplog.at_level(logging.WARNING):
        assert not load_model(DEFAULT_MODEL, "cpu").native
    assert "other tokens" in caplog.text


@pytest.fixture
def rebuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine where the kernels have never been built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


@pytest.mark.usefixtures("rebuilt")
@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler -x", "no-such-compiler"), ("false", "false"), ("", "no C++ compiler")],
)
def test_without_a_compiler_that_works_the_log_says_so(
    compiler: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernels, "is_x86", lambda: True)
    monkeypatch.setattr(kernels, "instructions", lambda: frozenset(kernels.WANTED))
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(kernels, "COMPILERS", ("no-such-compiler",))
    with caplog.at_level(logging.WARNING):
        assert library.__wrapped__() is None
    assert "CPU kernels are not used" in caplog.text
    assert reason in caplog.text


@pytest.mark.usefixtures("rebuilt")
def test_other_processors_keep_torchs_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "instructions", lambda: frozenset({"sse2"}))
    assert library.__wrapped__() is None


@needs_kernels
@pytest.mark.skipif("CXX" in os.environ, reason="this is that run")
def test_processors_without_avx_512_compute_the_same() -> None:
    """The tests above once more, of kernels built with AVX2 alone."""
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "torchs"]
    environment = {**os.environ, "CXX": "c++ -march=x86-64-v3"}
    done = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_choosing_a_token_never_waits_for_a_compiler() -> None:
    """Nor does it use the kernels of a model that is to do without."""
    program = """
        import torch
        from engine.kernels.cpu import library
        from engine.sampling.sampler import choose
        choose(torch.zeros(2, 9), [(1, 2), None])
        print(library.library.cache_info().currsize)
    """
    run = [sys.executable, "-c", textwrap.dedent(program)]
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip() == "0"


@needs_kernels
@pytest.mark.usefixtures("rebuilt")
def test_a_library_is_built_once_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library.__wrapped__() is not None
    assert len(list(kernels.kernel_folder().iterdir())) == 1
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert library.__wrapped__() is not None
