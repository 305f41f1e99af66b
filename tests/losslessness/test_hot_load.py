"""Adapters come and go beside running requests, and no token changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from adapters.format import BitaAdapter
from engine.engine import Engine
from engine.errors import NoFreeSlot, UnknownAdapter
from engine.request import Request
from tests import factories
from tests.oracle import OracleEngine

COUNT = 10


@pytest.fixture(scope="module", params=["Llama", "Falcon"])
def served(request: pytest.FixtureRequest) -> tuple[Any, str, list[list[int]], dict[str, Any]]:
    """A model of either route, prompts and what generate says of them."""
    model = factories.tiny_model(request.param)
    prompts = factories.prompts(COUNT, seed=11)
    expected = {str(i): factories.generate(model, p) for i, p in enumerate(prompts)}
    return model, request.param, prompts, expected


class Run:
    """An engine and the tokens of its requests so far; invariants are checked after every step."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tokens: dict[str, list[int]] = {}

    def add(self, request: Request, adapter: str | None) -> None:
        self.engine.add(dataclasses.replace(request, adapter=adapter))
        self.tokens[request.request_id] = []

    def steps(self, count: int = 10_000) -> None:
        while count and self.engine.has_work:
            for output in self.engine.step():
                self.tokens[output.request_id] += output.token_ids
            self.engine.scheduler.check_integrity()
            self.engine.adapters.check_integrity()
            count -= 1

    def load(self, name: str, adapter: BitaAdapter) -> int:
        return self.engine.adapters.load(name, self.engine.prepare(adapter)).slot

    @property
    def masks(self) -> int:
        return self.engine.stats().rows["mask"]


@pytest.mark.parametrize("tree", ["comb", "auto"])
def test_adapters_come_and_go_beside_running_requests(served, tree: str) -> None:  # type: ignore[no-untyped-def]
    model, architecture, prompts, expected = served
    requests = factories.requests(prompts)
    engine = factories.engine(factories.load(model, architecture), tree=tree, max_adapters=2)
    OracleEngine(expected, right=0.5).patch(engine)
    run = Run(engine)
    run.add(requests[0], None)
    run.steps(3)
    assert run.masks == 0
    assert run.load("a", factories.random_adapter(model, seed=1, prompts=9, masks=3)) == 0
    run.add(requests[1], "a")
    run.add(requests[2], None)  # the base model's name: the adapter that is there now
    run.steps(3)
    assert run.masks > 0

    engine.adapters.unload("a")
    with pytest.raises(UnknownAdapter):
        run.add(requests[3], "a")
    run.add(requests[3], None)
    assert run.load("a", factories.random_adapter(model, seed=2, prompts=2, masks=2)) == 1
    run.add(requests[4], "a")
    run.steps(2)
    with pytest.raises(NoFreeSlot, match="unloaded"):
        run.load("b", factories.random_adapter(model, seed=3))
    run.steps()
    assert len(run.tokens) == 5

    assert run.load("b", factories.random_adapter(model, seed=3, prompts=5, masks=3)) == 0
    before = run.masks
    for i in range(5, COUNT):
        run.add(requests[i], "ab"[i % 2])
    run.steps()
    assert run.masks > before
    assert run.tokens == expected


def test_a_reloaded_slot_drafts_what_a_fresh_engine_drafts(served) -> None:  # type: ignore[no-untyped-def]
    """Nothing of the adapter that was there before is left: not a prompt, not a mask."""
    model, architecture, prompts, expected = served
    requests = factories.requests(prompts)
    loaded = factories.load(model, architecture)
    small = factories.random_adapter(model, seed=5, prompts=3, masks=2)
    drafts = []
    for history in (False, True):
        engine = factories.engine(loaded, max_adapters=1)
        run = Run(engine)
        if history:
            run.load("before", factories.random_adapter(model, seed=4, prompts=40, masks=6))
            factories.run(engine, requests[:2])
            engine.adapters.unload("before")
        run.load("small", small)
        run.add(requests[2], "small")
        seen = []
        while engine.has_work:
            run.steps(1)
            seen += [s.draft and s.draft.token_ids for s in engine.sequences.values()]
        assert run.tokens["2"] == expected["2"]
        drafts.append(seen)
    assert drafts[0] == drafts[1]
    assert any(drafts[0])


def test_aborted_and_preempted_requests_let_their_adapter_go(served) -> None:  # type: ignore[no-untyped-def]
    model, architecture, prompts, expected = served
    loaded = factories.load(model, architecture)
    facts = loaded.facts
    token_bytes = 2 * facts.num_layers * facts.num_kv_heads * facts.head_dim * 4
    engine = factories.engine(
        loaded,
        max_adapters=1,
        kv_cache_memory=token_bytes * 4 * 40,
        max_num_batched_tokens=96,
    )
    OracleEngine(expected, right=0.6).patch(engine)
    run = Run(engine)
    run.load("a", factories.random_adapter(model))
    for request in factories.requests(prompts):
        run.add(request, "a")
    run.steps(4)
    engine.adapters.unload("a")
    for name in ("0", "9"):
        engine.abort(name)
        del run.tokens[name]
    run.steps()
    assert engine.stats().num_preemptions > 0
    assert run.tokens == {name: expected[name] for name in run.tokens}
    assert run.load("b", factories.random_adapter(model, seed=2)) == 0
