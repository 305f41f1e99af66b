"""The fast backend against the oracle, on batches of every shape."""

import pytest
import torch

from engine.attention.interface import LayerCall, Scope
from engine.attention.reference import ReferenceStep
from engine.attention.sdpa import MAX_BATCHED_ROWS, SdpaStep
from engine.batch import ForwardBatch, SegmentPlan
from engine.cache.storage import KVStorage
from engine.speculation.tree import TreeTopology

BLOCK, HEADS, DIM, PROMPTS = 4, 4, 8, 3


def storage(kv_heads: int) -> KVStorage:
    made = KVStorage(
        num_layers=2,
        num_kv_heads=kv_heads,
        key_dim=DIM,
        value_dim=DIM,
        num_blocks=80,
        block_size=BLOCK,
        adapter_slots=2,
        max_prompts=PROMPTS,
        step_rows=400,
        max_segments=8,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    torch.manual_seed(0)
    made.keys.normal_()
    made.values.normal_()
    for slot in range(2):
        made.set_prompts(slot, torch.randn(2, 2, kv_heads, PROMPTS, DIM))
    return made


def batch(store: KVStorage) -> ForwardBatch:
    """A long prefill, a chunk without a root, trees behind short and long pasts, a bare root."""
    drafts = [list(range(5))] * 3
    comb = TreeTopology.comb(5, 3).fill(1, drafts)
    chain = TreeTopology.chain(3).fill(1, drafts)
    root = TreeTopology.root(0).fill(1)
    blocks = list(range(79, -1, -1))
    plans = [
        SegmentPlan(list(range(MAX_BATCHED_ROWS + 20)), chain, 9, blocks[:60], 0),
        SegmentPlan(list(range(7)), None, 0, blocks[60:64], 0),
        SegmentPlan([], comb, 50, blocks[:30], 1),
        SegmentPlan([5, 6], chain, 3, blocks[64:70], 0),
        SegmentPlan([], root, 1, blocks[70:72], 1),
    ]
    return ForwardBatch.build(plans, BLOCK, store.scratch_block, 3, 2048)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("scope", "softcap", "sinks"),
    [
        (Scope(), None, False),
        (Scope(window=5), None, False),
        (Scope(chunk=8), None, False),
        (Scope(), 2.0, False),
        (Scope(window=6), None, True),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_the_fast_backend_agrees_with_the_oracle(
    kv_heads: int, scope: Scope, softcap: float | None, sinks: bool, alone: bool
) -> None:
    store = storage(kv_heads)
    rows = batch(store)
    if alone:
        plan = SegmentPlan([], TreeTopology.root(0).fill(1), 9, [7, 3, 5], 1)
        rows = ForwardBatch.build([plan], BLOCK, store.scratch_block, 3, 2048)
    extra = torch.randn(HEADS) if sinks else None
    call = LayerCall(1, DIM**-0.5, scope, softcap, extra)
    query = torch.randn(rows.num_rows, HEADS, DIM)
    key, value = (torch.randn(rows.num_rows, kv_heads, DIM) for _ in range(2))
    before = store.keys[:, : store.scratch_block * BLOCK].clone()
    fast = SdpaStep(rows, store, [PROMPTS, PROMPTS - 1]).forward(query, key, value, call)
    slow = ReferenceStep(rows, store, [PROMPTS, PROMPTS - 1]).forward(query, key, value, call)
    assert torch.allclose(fast, slow, atol=1e-5)
    assert torch.equal(before, store.keys[:, : store.scratch_block * BLOCK]), "cache was written"
