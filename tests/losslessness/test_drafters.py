"""Chains beside BiTA's drafts, each source alone and all together, change no token."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import Any

import pytest

from engine.request import Request
from engine.speculation.sources import NAMES, names
from tests import factories

COUNT = 10
MAX_TOKENS = 48

SOURCES = {
    "ngram": {"ngram"},
    "prediction": {"prediction"},
    "ngram and prediction": {"ngram", "prediction"},
    "bita and ngram": {"bita", "ngram"},
    "bita and prediction": {"bita", "prediction"},
    "all but a grammar, which these have not": set(NAMES) - {"grammar"},
}


def edited(tokens: list[int], seed: int) -> list[int]:
    """The text with a tenth of its tokens replaced, left out or joined by others."""
    rng = random.Random(seed)
    out: list[int] = []
    for token in tokens:
        draw = rng.random()
        if draw > 0.06:
            out.append(token)
        if draw < 0.03 or draw > 0.97:
            out += [rng.randrange(factories.VOCAB) for _ in range(rng.randint(1, 3))]
    return out


def predicting(
    requests: list[Request], expected: dict[str, list[int]], **fields: Any
) -> list[Request]:
    """The requests, each with a nearly right prediction of what is expected."""
    return [
        dataclasses.replace(r, prediction=edited(expected[r.request_id], i), **fields)
        for i, r in enumerate(requests)
    ]


@pytest.fixture(scope="module")
def llama() -> tuple[Any, list[list[int]], dict[str, list[int]]]:
    """A model, prompts and what generate says of them."""
    model = factories.tiny_model("Llama")
    prompts = factories.prompts(COUNT, seed=7)
    texts = (factories.generate(model, prompt, MAX_TOKENS) for prompt in prompts)
    return model, prompts, {str(i): text for i, text in enumerate(texts)}


def auto(model: Any, **config: Any) -> factories.Engine:
    """An engine whose planner takes chains, with one adapter."""
    adapters = {"a": factories.random_adapter(model)}
    return factories.engine(factories.load(model, "Llama"), adapters, tree="auto", **config)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_tokens_of_generate(llama, name) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    switches = {source: source in SOURCES[name] for source in NAMES}
    requests = predicting(factories.requests(prompts, MAX_TOKENS), expected, drafters=switches)
    engine = auto(model)
    assert factories.run(engine, requests, [i // 2 * 3 for i in range(COUNT)]) == expected
    drafted = engine.stats().speculation.drafted_by_source
    assert {source for source in NAMES if drafted[source]} == SOURCES[name]
    alone = factories.run(engine, requests[:1])
    assert alone == {"0": expected["0"]}


@pytest.mark.parametrize("sampling", [{"temperature": 0.8}, {"temperature": 1.0, "top_p": 0.7}])
def test_a_seed_gives_the_tokens_of_plain_decoding(llama, sampling) -> None:  # type: ignore[no-untyped-def]
    model, prompts, _ = llama
    plain = factories.requests(prompts, MAX_TOKENS, speculation=False, seed=5, **sampling)
    engine = auto(model)
    expected = factories.run(engine, plain)
    requests = predicting(plain, expected, speculation=True)
    assert factories.run(engine, requests) == expected
    assert engine.stats().speculation.accepted_by_source["prediction"] > COUNT * MAX_TOKENS / 2


def test_preemption_leaves_the_sources_where_they_were(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    block_bytes = 2 * 2 * 2 * 16 * 4 * 4
    engine = auto(model, kv_cache_memory=block_bytes * 50, max_num_batched_tokens=96)
    requests = predicting(factories.requests(prompts, MAX_TOKENS), expected)
    assert factories.run(engine, requests) == expected
    assert engine.stats().num_preemptions > 0
    assert engine.scheduler.pool.usage == 0


def test_requests_with_and_without_sources_and_adapters_mix_in_a_batch(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    engine = auto(model, drafters=("bita",))
    requests = predicting(factories.requests(prompts, MAX_TOKENS), expected)
    mixed = [
        dataclasses.replace(
            request,
            speculation=i % 5 > 0,
            drafters={"bita": i % 2 > 0, "ngram": i % 3 > 0, "prediction": i % 4 > 0},
        )
        for i, request in enumerate(requests)
    ]
    assert factories.run(engine, mixed) == expected
    drafted = engine.stats().speculation.drafted_by_source
    assert all(drafted[source] for source in NAMES if source != "grammar")


def test_without_an_adapter_chains_are_drafted_all_the_same(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    engine = factories.engine(factories.load(model, "Llama"), tree="auto")
    requests = predicting(factories.requests(prompts, MAX_TOKENS), expected)
    assert factories.run(engine, requests) == expected
    stats = engine.stats()
    assert stats.rows["mask"] == 0
    assert stats.num_forwards < MAX_TOKENS * 2 / 3


def test_a_trace_tells_of_every_token_who_drafted_it(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    engine = auto(model)
    for request in predicting(factories.requests(prompts, MAX_TOKENS), expected, trace=True):
        engine.add(request)
    tokens: dict[str, list[int]] = {name: [] for name in expected}
    drafted: Counter[str] = Counter()
    while engine.has_work:
        for output in engine.step():
            assert output.sources is not None
            tokens[output.request_id] += output.token_ids
            assert len(output.sources) == len(output.token_ids)
            assert all(output.sources[:-1])
            if output.finish_reason is None:
                assert output.sources[-1] == 0
            for bits in output.sources:
                drafted.update(names(bits))
    assert tokens == expected
    accepted = engine.stats().speculation.accepted_by_source
    assert {source: drafted[source] for source in NAMES} == accepted


def test_a_prediction_that_is_all_wrong_is_soon_left_alone(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    request = factories.requests(prompts[:1], MAX_TOKENS)[0]
    others = [t for t in range(factories.VOCAB) if t not in expected["0"]]
    wrong = [others[i % len(others)] for i in range(MAX_TOKENS)]
    request = dataclasses.replace(request, prediction=wrong, drafters={"ngram": False})
    engine = factories.engine(factories.load(model, "Llama"), tree="auto")
    engine.add(request)
    drafted = []
    while engine.has_work:
        engine.step()
        drafted.append(engine.stats().speculation.drafted_by_source["prediction"])
    assert drafted[0] + drafted[1] > 0
    assert drafted[MAX_TOKENS // 2] == drafted[-1], "nothing is drafted in the second half"


def test_nothing_is_drafted_beyond_the_last_token_that_may_come(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    engine = factories.engine(factories.load(model, "Llama"), tree="auto")
    requests = factories.requests(prompts[:1], max_tokens=8)
    exact = [dataclasses.replace(r, prediction=expected[r.request_id]) for r in requests]
    assert factories.run(engine, exact) == {"0": expected["0"][:8]}
    speculation = engine.stats().speculation
    assert speculation.drafted_by_source["prediction"] == 6
    assert speculation.num_accepted_tokens == 6


def test_a_fixed_tree_holds_no_chains(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    adapters = {"a": factories.random_adapter(model)}
    engine = factories.engine(factories.load(model, "Llama"), adapters, tree="comb")
    requests = predicting(factories.requests(prompts[:2], MAX_TOKENS), expected)
    assert factories.run(engine, requests) == {n: expected[n] for n in "01"}
    drafted = engine.stats().speculation.drafted_by_source
    assert drafted["ngram"] == drafted["prediction"] == 0
