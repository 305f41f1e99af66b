"""Deterministic steps: the same bits with and without drafts, alone and beside others."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from adapters.format import BitaAdapter
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineError
from engine.load import base_shape
from engine.model.loaded import LoadedModel
from engine.model.loader import load_model
from engine.request import Request, RequestOutput
from models import DEFAULT_ADAPTER, DEFAULT_MODEL
from tests import factories
from tests.oracle import OracleEngine

COUNT = 6
FAMILIES = ("Llama", "Gemma2")
MORE_FAMILIES = ("Gemma3Text", "GPTNeoX", "OPT", "Qwen3", "Granite", "Phi3")


def bf16(architecture: str) -> LoadedModel:
    """A tiny random model in 16 bit, where sums in another order soon give another token."""
    model = factories.tiny_model(architecture).to(torch.bfloat16)
    return dataclasses.replace(factories.load(model, architecture), dtype=torch.bfloat16)


def requests(speculation: bool) -> list[Request]:
    """Greedy and sampled ones with log-probabilities, which show more than tokens do."""
    start = factories.prompts(1, seed=5, longest=40)[0]
    prompts = [
        (start if index % 4 == 3 else []) + prompt
        for index, prompt in enumerate(factories.prompts(COUNT, longest=80))
    ]
    return [
        dataclasses.replace(
            request,
            sampling=dataclasses.replace(
                request.sampling,
                logprobs=2,
                prompt_logprobs=1 if index % 4 == 0 else None,
                temperature=float(index % 2),
                seed=index,
            ),
        )
        for index, request in enumerate(factories.requests(prompts, 16, speculation))
    ]


def told(outputs: list[RequestOutput]) -> list[Any]:
    """Everything said of a request, every bit of it."""
    prompt = [entry for o in outputs for entry in o.prompt_logprobs or []]
    return prompt + [entry for o in outputs for entry in o.logprobs or []]


def alone(loaded: LoadedModel, **config: Any) -> dict[str, list[RequestOutput]]:
    """Plain decoding, a request after the other, each with a fresh cache."""
    found = {}
    for request in requests(speculation=False):
        found |= factories.run_outputs(factories.engine(loaded, **config), [request])
    return found


def crowded(
    loaded: LoadedModel, expected: dict[str, list[RequestOutput]], **config: Any
) -> tuple[Engine, dict[str, list[RequestOutput]]]:
    """All of them, drafted for by who is often right, in few KV blocks and few rows."""
    adapter = {"a": factories.random_adapter(loaded.model)}
    facts = loaded.facts
    block = 2 * facts.num_layers * facts.num_kv_heads * facts.head_dim * 4 * loaded.dtype.itemsize
    engine = factories.engine(loaded, adapter, tree="chain", kv_cache_memory=48 * block, **config)
    answers = {
        name: [token for o in outputs for token in o.token_ids]
        for name, outputs in expected.items()
    }
    OracleEngine(answers, 0.6).patch(engine)
    arrivals = [index // 3 for index in range(COUNT)]
    return engine, factories.run_outputs(engine, requests(speculation=True), arrivals)


@pytest.mark.parametrize(
    "architecture",
    [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_FAMILIES)],
)
def test_every_bit_is_that_of_plain_decoding_alone(architecture: str) -> None:
    loaded = bf16(architecture)
    expected = alone(loaded, deterministic=True)
    engine, found = crowded(loaded, expected, deterministic=True)
    assert {name: told(o) for name, o in found.items()} == {
        name: told(o) for name, o in expected.items()
    }
    stats = engine.stats()
    assert stats.speculation.num_accepted_tokens > COUNT
    assert stats.num_preemptions > 0


def test_without_it_16_bit_is_not_the_same_everywhere() -> None:
    """Or the test above would show nothing."""
    loaded = bf16("Llama")
    expected = alone(loaded)
    _, found = crowded(loaded, expected)
    assert any(told(found[name]) != told(expected[name]) for name in expected)


@pytest.mark.parametrize("architecture", ["Mixtral", "Qwen3Moe", "Llama4Text", "Falcon"])
def test_models_whose_rows_are_not_independent_are_refused(architecture: str) -> None:
    with pytest.raises(EngineError, match="--deterministic"):
        factories.engine(bf16(architecture), deterministic=True)


@pytest.mark.slow
def test_the_embedded_model_gives_every_bit_of_plain_decoding() -> None:
    """In 16 bit, with its own adapter, whose drafts are often right, and several at once."""
    loaded = load_model(DEFAULT_MODEL, "cpu", "bfloat16")
    adapter = BitaAdapter.load(DEFAULT_ADAPTER, base_shape(loaded))
    prompts = [[1, 40 + i, 300, 7, 900 + i] for i in range(3)]

    def answers(drafts: bool, together: int) -> list[list[Any]]:
        config = EngineConfig(
            model=str(DEFAULT_MODEL), deterministic=True, tree="fitted:16", kv_cache_memory=1 << 26
        )
        engine = Engine(config, loaded, {"bita": adapter})
        made = factories.requests(prompts, 24, speculation=drafts, logprobs=1, ignore_eos=True)
        found: dict[str, list[RequestOutput]] = {}
        for first in range(0, len(made), together):
            found |= factories.run_outputs(engine, made[first : first + together])
        assert drafts == (engine.stats().speculation.num_accepted_tokens > 0)
        return [told(found[request.request_id]) for request in made]

    assert answers(drafts=True, together=3) == answers(drafts=False, together=1)


def test_another_attention_is_refused() -> None:
    with pytest.raises(EngineError, match="attention of their own"):
        EngineConfig(model="tiny", deterministic=True, attention="triton")
