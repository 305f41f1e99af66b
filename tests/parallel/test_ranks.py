"""Two ranks give what one gives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch.distributed.tensor import DTensor

from engine.engine import Engine
from engine.parallel.group import Workers
from engine.request import Request
from tests import factories
from tests.parallel.conftest import Share

BLOCKS = 18
BLOCK = 4
TOKENS = 12
LISTENING, LOOPBACK = "0A", ("0100007F", "00000000000000000000000001000000")


def memory(model: Any, ranks: int) -> int:
    """Bytes of a rank that hold `BLOCKS` blocks."""
    facts = factories.model_facts(model.config)
    return 2 * facts.num_layers * facts.num_kv_heads // ranks * facts.head_dim * 4 * BLOCK * BLOCKS


def mixed_requests() -> list[Request]:
    """Greedy and sampled ones, beginnings in common, one without an adapter, one with a report."""
    long = factories.prompts(1, seed=5, longest=40)[0]
    prompts = [*factories.prompts(4, longest=30), [*long, 1], [*long, 2]]
    requests = factories.requests(prompts[:3], TOKENS)
    requests += factories.requests(prompts[3:4], TOKENS, temperature=0.9, seed=7, top_k=20)
    requests += factories.requests(prompts[4:5], TOKENS, prompt_logprobs=2)
    requests += factories.requests(prompts[5:], TOKENS, speculation=False)
    return [
        Request(str(i), r.token_ids, r.sampling, speculation=r.speculation)
        for i, r in enumerate(requests)
    ]


def assert_half(own: Any, whole: Any) -> None:
    """Every weight but those of norms is divided."""
    named = whole.named_parameters(remove_duplicate=False)  # a tied head by its name, too
    sizes = {name: parameter.numel() for name, parameter in named}
    for name, parameter in own.named_parameters():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        assert local.numel() == sizes[name] // (1 if "norm" in name else 2), name


def served(engine: Engine) -> tuple[dict[str, list[int]], Any]:
    tokens = factories.run(engine, mixed_requests(), [0, 0, 1, 2, 3, 30])
    stats = engine.stats()
    assert stats.num_preemptions, "blocks were to run out"
    assert stats.prefix_cache_hits, "beginnings were to be found again"
    return tokens, (stats.num_forwards, stats.rows)


@pytest.mark.parametrize(
    ("family", "tree"), [("Llama", "comb"), ("Qwen3", "auto"), ("Gemma2", "auto")]
)
def test_tokens_are_those_of_one_rank_that_has_twice_the_weights(
    family: str, tree: str, share: Share
) -> None:
    model = factories.tiny_model(family)
    adapter = factories.random_adapter(model)
    settings: dict[str, Any] = {"tree": tree, "max_num_batched_tokens": 80, "max_num_seqs": 4}
    loaded, build = share(model)
    assert_half(loaded.model, model)
    alone = factories.engine(
        factories.load(model, family),
        {"bita": adapter},
        kv_cache_memory=memory(model, 1),
        **settings,
    )
    shared = factories.engine(
        loaded,
        build=build,
        kv_cache_memory=memory(model, 2),
        max_adapters=1,
        **settings,
    )
    shared.adapters.load("bita", shared.prepare(adapter))
    assert shared.runner.storage.num_blocks == alone.runner.storage.num_blocks == BLOCKS
    assert shared.runner.storage.keys.shape[2] * 2 == alone.runner.storage.keys.shape[2]
    # A part of the output projection would lie on any of the ranks.
    assert shared.runner.draft_head(torch.arange(40), None).tokens is None
    assert served(shared) == served(alone)


def test_masks_see_the_prompts_of_their_ranks_heads(share: Share) -> None:
    model = factories.tiny_model("Llama")
    adapter = factories.random_adapter(model)
    loaded, build = share(model)
    hidden = []
    for engine in (
        factories.engine(factories.load(model, "Llama"), {"bita": adapter}),
        factories.engine(loaded, {"bita": adapter}, build=build),
    ):
        engine.add(factories.requests([[3, 1, 4, 1, 5]])[0])
        batch = engine._batch(engine.scheduler.schedule())
        assert len(batch.mask_rows)
        hidden.append(engine.runner.execute(batch).hidden)
    torch.testing.assert_close(*hidden)


def test_a_buffer_is_cleaned_behind_the_commit_that_workers_have_not_heard_of(
    share: Share,
) -> None:
    model = factories.tiny_model("Llama")
    loaded, build = share(model)
    shared = factories.engine(loaded, build=build)
    requests = factories.requests(factories.prompts(3), max_tokens=8)
    expected = factories.run(factories.engine(factories.load(model, "Llama")), requests)
    with mock.patch.object(shared, "_all_finite", return_value=False):
        assert factories.run(shared, requests) == expected


def test_nothing_listens_beyond_loopback(workers: Workers) -> None:
    found = 0
    for pid in ("self", str(workers._processes[0].pid)):
        inodes = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in descriptors(pid)}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local_address, _, state, *_ = fields = line.split()
                if state == LISTENING and f"socket:[{fields[9]}]" in inodes:
                    assert local_address.partition(":")[0] in LOOPBACK
                    found += 1
    assert found, "gloo and the store listen somewhere"


def descriptors(pid: str) -> list[str]:
    """Of a process, without the one that lists them."""
    return [fd for fd in os.listdir(f"/proc/{pid}/fd") if os.path.exists(f"/proc/{pid}/fd/{fd}")]
