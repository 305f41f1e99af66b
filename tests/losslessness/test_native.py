"""Our CPU kernels: the tokens of `generate`, and the same bits whatever is beside a row."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.engine import Engine
from engine.kernels.cpu.library import library
from engine.model.linears import NativeLinear, pack
from engine.model.loaded import LoadedModel
from engine.model.native import FAMILIES, NativeRunner, is_native
from engine.request import RequestOutput
from tests import factories
from tests.losslessness.test_deterministic import alone, crowded, told
from tests.oracle import OracleEngine

pytestmark = pytest.mark.skipif(library() is None, reason="our CPU kernels cannot be built here")
ARCHITECTURES = ["Llama", "Mistral", "Qwen2", "Qwen3"]
COUNT = 10


def native(architecture: str, dtype: torch.dtype = torch.float32) -> tuple[Any, LoadedModel]:
    """A tiny random model, and the same as our kernels compute it."""
    model = factories.tiny_model(architecture).to(dtype)
    ours = factories.tiny_model(architecture).to(dtype)
    pack(ours, NativeLinear)
    loaded = replace(factories.load(ours, architecture), dtype=dtype)
    assert is_native(loaded)
    return model, replace(loaded, native=True)


def test_every_family_is_tested() -> None:
    assert sorted(name.lower() for name in ARCHITECTURES) == sorted(FAMILIES)


@pytest.mark.parametrize("tree", ["comb", "chain", "auto"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_family_gives_the_tokens_of_generate(architecture: str, tree: str) -> None:
    """With drafts that are often right, in a growing batch, in chunks, and with preemption."""
    model, loaded = native(architecture)
    prompts = factories.prompts(COUNT, seed=3, longest=70)
    expected = {str(i): factories.generate(model, p) for i, p in enumerate(prompts)}
    block = 2 * loaded.facts.num_layers * loaded.facts.num_kv_heads * loaded.facts.head_dim * 16
    adapter = factories.random_adapter(model, drafted=40)
    engine = factories.engine(
        loaded,
        {"a": adapter},
        tree=tree,
        kv_cache_memory=60 * block,
        max_num_batched_tokens=48,
    )
    assert isinstance(engine.runner, NativeRunner)
    OracleEngine(expected, 0.6).patch(engine)
    arrivals = [i // 2 * 3 for i in range(COUNT)]
    assert factories.run(engine, factories.requests(prompts), arrivals) == expected
    assert engine.stats().num_preemptions > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_bit_is_that_of_plain_decoding_alone(architecture: str, dtype: torch.dtype) -> None:
    """Without being asked to be deterministic."""
    _, loaded = native(architecture, dtype)
    expected = alone(loaded)
    engine, found = crowded(loaded, expected)
    assert {name: told(o) for name, o in found.items()} == {
        name: told(o) for name, o in expected.items()
    }
    assert engine.stats().speculation.num_accepted_tokens > 0


@pytest.mark.skipif("CXX" in os.environ, reason="this is that run")
@pytest.mark.parametrize("processor", ["znver3", "haswell"])
def test_every_bit_is_the_same_however_a_compiler_would_rather_have_it(processor: str) -> None:
    """For some processors it fuses some products with sums and not others, where it may choose."""
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "bit"]
    environment = {**os.environ, "CXX": f"c++ -march=x86-64-v3 -mtune={processor}"}
    done = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_deterministic_steps_are_as_large_as_any() -> None:
    _, loaded = native("Llama", torch.bfloat16)
    usual, engine = (
        factories.engine(loaded, deterministic=wanted, max_num_seqs=100) for wanted in (False, True)
    )
    assert engine.config.max_num_seqs == usual.config.max_num_seqs
    assert engine.runner.fixed_rows == 0


def outputs_of(engine: Engine, **sampling: Any) -> dict[str, list[RequestOutput]]:
    prompts = factories.prompts(4, seed=1)
    return factories.run_outputs(engine, factories.requests(prompts, **sampling))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_of_an_adapter_change_no_bit_of_a_sampled_answer(temperature: float) -> None:
    _, loaded = native("Llama", torch.bfloat16)
    adapter = factories.random_adapter(loaded.model)
    how: dict[str, Any] = {"temperature": temperature, "seed": 5, "logprobs": 1}
    plain = outputs_of(factories.engine(loaded), **how)
    drafted = outputs_of(factories.engine(loaded, {"a": adapter}), **how)
    assert {n: told(o) for n, o in plain.items()} == {n: told(o) for n, o in drafted.items()}


def test_numbers_that_are_not_finite_end_their_own_request_alone() -> None:
    _, loaded = native("Llama")
    usual = {name: told(o) for name, o in outputs_of(factories.engine(loaded), logprobs=1).items()}
    table = loaded.model.get_input_embeddings().weight
    poisoned = factories.prompts(4, seed=1)[2][1]
    others = [n for n, p in enumerate(factories.prompts(4, seed=1)) if poisoned not in p]
    assert others
    engine = factories.engine(loaded)
    before = table[poisoned].clone()
    table[poisoned] = torch.nan
    try:
        found = outputs_of(engine, logprobs=1)
    finally:
        table[poisoned] = before
    assert found["2"][-1].error is not None
    for number in others:
        answer = [token for o in found[str(number)] for token in o.token_ids]
        if poisoned not in answer:
            assert told(found[str(number)]) == usual[str(number)]
