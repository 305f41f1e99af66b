"""Rows of a forward: what tuning laid out is what inference runs."""

import numpy as np

from adapters.tuning.layout import Sample, mask_groups
from engine.attention.interface import Scope
from engine.attention.mask import visible
from engine.batch import ForwardBatch, RowKind, SegmentPlan
from engine.speculation.tree import TreeTopology

BLOCK = 4


def build(*plans: SegmentPlan) -> ForwardBatch:
    return ForwardBatch.build(plans, BLOCK, 100, 3, 2048)


def test_a_mask_group_of_tuning_sees_what_the_root_group_of_inference_sees() -> None:
    """The bug class that makes an adapter trained right and served wrong."""
    tokens, anchor, masks = list(range(10, 30)), 13, 3
    groups = mask_groups([Sample(tokens, [(10, 20)])], [[anchor]], masks)
    # Inference: tokens before the anchor are known, the last of them is the root.
    for past in (0, 5, anchor - 1):
        tree = TreeTopology.root(masks).fill(tokens[anchor - 1])
        batch = build(SegmentPlan(tokens[past : anchor - 1], tree, past, list(range(9)), 0))
        segment = batch.segments[0]
        columns = -(-past // BLOCK) * BLOCK
        seen = visible(segment, batch.positions, Scope(), columns, segment.num_rows, 0, 0)
        rows = batch.mask_rows
        assert batch.positions[rows].tolist() == groups.positions[0].tolist()
        real = np.concatenate([seen[rows][:, :past], seen[rows][:, columns:-masks]], axis=1)
        assert real.tolist() == groups.visible[0, :, :anchor].tolist()
        assert not groups.visible[0, :, anchor : len(tokens)].any()
        assert seen[rows][:, -masks:].tolist() == groups.visible[0, :, len(tokens) :].tolist()


def test_a_group_behind_a_node_sees_what_tuning_shows_one_token_later() -> None:
    tokens, anchor, masks = list(range(10, 30)), 13, 3
    later = mask_groups([Sample(tokens, [(10, 20)])], [[anchor + 1]], masks)
    tree = TreeTopology.chain(masks).fill(tokens[anchor - 1], [[tokens[anchor]], [1], [2]])
    batch = build(SegmentPlan([], tree, anchor - 1, list(range(9)), 0))
    segment = batch.segments[0]
    first = segment.mask_row(tree.topology.masks, 1)
    assert batch.positions[first : first + masks].tolist() == later.positions[0].tolist()
    word = segment.layout.words[first - segment.root]  # type: ignore[union-attr]
    assert word & 0b1111 == 0b11  # the root and the first node, no other node


def test_sequences_follow_each_other_with_scratch_blocks_of_their_own() -> None:
    tree = TreeTopology.comb(5, 3).fill(7)
    batch = build(
        SegmentPlan([1, 2, 3, 4, 5], tree, 0, [0, 1, 2], 0), SegmentPlan([9], None, 4, [3], 0)
    )
    assert [s.start for s in batch.segments] == [0, 9]
    assert batch.scratch_slots.tolist() == [*range(400, 409), 412]
    assert batch.count() == {
        RowKind.PREFILL: 6,
        RowKind.ROOT: 1,
        RowKind.NODE: 0,
        RowKind.MASK: 3,
    }


def test_drafts_past_the_last_position_stay_at_it() -> None:
    tree = TreeTopology.chain(3).fill(7, [[1], [2], [3]])
    plan = SegmentPlan([], tree, 14, [0, 1, 2, 3], 0)
    batch = ForwardBatch.build([plan], BLOCK, 100, 3, 16)
    assert batch.positions.max() == 15
