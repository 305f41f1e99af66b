"""Greedy output equals `transformers.generate`, token for token, whatever is speculated."""

import dataclasses
import random

import pytest
import torch

from engine.request import RequestOutput
from engine.speculation.planner import Fixed
from engine.speculation.tree import TreeTopology
from tests import factories
from tests.oracle import OracleEngine

COUNT = 12


def random_tree(seed: int, masks: int = 3, nodes: int = 9) -> TreeTopology:
    """Random parents, ranks and mask groups."""
    rng = random.Random(seed)
    parents, ranks, depths = [-1], [0], [0]
    while len(parents) < nodes:
        parent = rng.randrange(len(parents))
        if depths[parent] == masks:
            continue
        parents.append(parent)
        ranks.append(parents[:-1].count(parent))
        depths.append(depths[parent] + 1)
    groups = (masks, *(rng.randint(0, masks) for _ in range(nodes - 1)))
    return TreeTopology(tuple(parents), tuple(ranks), groups)


@pytest.mark.parametrize("architecture", factories.INTERFACE + factories.MASK)
def test_every_architecture_gives_the_tokens_of_generate(architecture: str) -> None:
    """Comb, chain and a random tree; alone, in a growing batch, and with preemption."""
    model = factories.tiny_model(architecture)
    prompts = factories.prompts(COUNT)
    expected = {str(i): factories.generate(model, p) for i, p in enumerate(prompts)}
    adapters = {"a": factories.random_adapter(model)}
    loaded = factories.load(model, architecture)
    for tree in ("comb", "chain", "random"):
        engine = factories.engine(loaded, adapters, tree="comb" if tree == "random" else tree)
        if tree == "random":
            engine.adapters["a"].planner = Fixed(random_tree(seed=3))
        arrivals = [i // 2 * 3 for i in range(COUNT)]
        assert factories.run(engine, factories.requests(prompts), arrivals) == expected
    alone = factories.engine(loaded, adapters)
    for request in factories.requests(prompts[:2]):
        assert factories.run(alone, [request])[request.request_id] == expected[request.request_id]


@pytest.fixture(scope="module")
def llama() -> tuple[object, list[list[int]], dict[str, list[int]]]:
    """A model, prompts and what generate says of them."""
    model = factories.tiny_model("Llama")
    prompts = factories.prompts(COUNT, seed=7)
    return model, prompts, {str(i): factories.generate(model, p) for i, p in enumerate(prompts)}


@pytest.mark.parametrize("right", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("tree", ["comb", "chain"])
def test_drafts_right_never_sometimes_or_always_change_no_token(llama, right, tree) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    loaded = factories.load(model, "Llama")
    engine = factories.engine(loaded, {"a": factories.random_adapter(model)}, tree=tree)
    OracleEngine(expected, right).patch(engine)
    assert factories.run(engine, factories.requests(prompts)) == expected
    accepted = engine.stats().speculation.num_accepted_tokens
    assert accepted > COUNT * 3 if right else accepted < COUNT * 3


def test_preemption_recomputes_and_changes_no_token(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    loaded = factories.load(model, "Llama")
    block_bytes = 2 * 2 * 2 * 16 * 4 * 4
    engine = factories.engine(
        loaded,
        {"a": factories.random_adapter(model)},
        kv_cache_memory=block_bytes * 40,
        max_num_batched_tokens=96,
    )
    OracleEngine(expected, 0.6).patch(engine)
    assert factories.run(engine, factories.requests(prompts)) == expected
    assert engine.stats().num_preemptions > 0
    assert engine.scheduler.pool.usage == 0


def test_a_cache_of_eight_blocks_serves_many_requests_one_after_the_other(llama) -> None:  # type: ignore[no-untyped-def]
    model, _, _ = llama
    prompts = factories.prompts(64, seed=4, longest=12)
    requests = factories.requests(prompts, max_tokens=12)
    loaded, adapters = factories.load(model, "Llama"), {"a": factories.random_adapter(model)}
    expected = factories.run(factories.engine(loaded, adapters), requests)
    block_bytes = 2 * 2 * 2 * 16 * 4 * 4
    tight = factories.engine(loaded, adapters, kv_cache_memory=block_bytes * 8)
    assert tight.runner.storage.num_blocks == 8
    assert factories.run(tight, requests) == expected
    assert tight.stats().num_preemptions > 0
    assert tight.scheduler.pool.usage == 0


def test_long_prompts_are_prefilled_in_chunks_beside_decoding_ones(llama) -> None:  # type: ignore[no-untyped-def]
    model, _, _ = llama
    prompts = factories.prompts(4, seed=9, longest=150)
    expected = {str(i): factories.generate(model, p) for i, p in enumerate(prompts)}
    loaded = factories.load(model, "Llama")
    engine = factories.engine(
        loaded, {"a": factories.random_adapter(model)}, max_num_batched_tokens=64, tree="chain"
    )
    assert factories.run(engine, factories.requests(prompts), [0, 1, 2, 3]) == expected


def test_a_shared_prefix_is_found_and_changes_no_token(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, _ = llama
    start = factories.prompts(1, seed=5, longest=40)[0] * 2
    longer = [start + p for p in prompts]
    expected = {str(i): factories.generate(model, p) for i, p in enumerate(longer)}
    loaded = factories.load(model, "Llama")
    engine = factories.engine(loaded, {"a": factories.random_adapter(model)})
    assert factories.run(engine, factories.requests(longer), range(0, 2 * COUNT, 2)) == expected
    assert engine.stats().prefix_cache_hits >= (COUNT - 2) * (len(start) // 4 * 4)
    assert engine.scheduler.pool.usage == 0


def test_requests_with_without_and_of_several_adapters_mix_in_a_batch(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    loaded = factories.load(model, "Llama")
    adapters = {
        "a": factories.random_adapter(model, seed=1),
        "b": factories.random_adapter(model, seed=2, prompts=7, masks=2, drafted=40),
    }
    engine = factories.engine(loaded, adapters, tree="chain")
    requests = [
        dataclasses.replace(r, adapter="ab"[i % 2], speculation=i % 3 > 0)
        for i, r in enumerate(factories.requests(prompts))
    ]
    assert factories.run(engine, requests) == expected
    assert engine.stats().rows["mask"] > 0


@pytest.mark.parametrize("architecture", ["Llama", "GPT2", "Granite", "Gemma2", "Falcon"])
def test_a_draft_vocabulary_is_all_that_is_drafted_and_changes_no_token(architecture: str) -> None:
    model = factories.tiny_model(architecture)
    prompts = factories.prompts(4, seed=3)
    expected = {str(i): factories.generate(model, p) for i, p in enumerate(prompts)}
    whole = factories.random_adapter(model)
    few = factories.random_adapter(model, drafted=40)
    engine = factories.engine(factories.load(model, architecture), {"a": few, "whole": whole})
    head = engine.adapters["a"].head
    assert head.tokens is not None
    hidden = torch.randn(3, model.get_input_embeddings().weight.shape[1])
    everything = engine.adapters["whole"].head.project(hidden)
    torch.testing.assert_close(head.project(hidden), everything[:, head.tokens])
    assert head.guide is not None
    assert few.successor is not None
    tokens = torch.tensor([3, 0, 41])
    read = few.successor.read_token(engine.runner.embed(tokens))
    torch.testing.assert_close(head.guide.read_token(tokens), read)
    allowed = set(head.tokens.tolist())
    drafted: set[int] = set()
    step = engine.step

    def watched() -> list[RequestOutput]:
        outputs = step()
        for sequence in engine.scheduler.running:
            drafted.update(sequence.draft.token_ids[1:] if sequence.draft else ())
        return outputs

    engine.step = watched  # type: ignore[method-assign]
    assert factories.run(engine, factories.requests(prompts)) == expected
    assert drafted
    assert drafted <= allowed


def test_plain_decoding_runs_one_row_a_token(llama) -> None:  # type: ignore[no-untyped-def]
    model, prompts, expected = llama
    engine = factories.engine(factories.load(model, "Llama"))
    assert factories.run(engine, factories.requests(prompts, speculation=False)) == expected
    assert engine.stats().rows["mask"] == engine.stats().rows["node"] == 0
