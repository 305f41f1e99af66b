"""Work of any size that changes nothing: to time it, or to have it compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from engine.batch import ForwardBatch, SegmentPlan
from engine.model.runner import ModelRunner
from engine.speculation.bita import Branches, MaskGroup, Parent
from engine.speculation.growth import WIDTH
from engine.speculation.tree import TreeTopology


def trial_batch(runner: ModelRunner, past: int, lengths: Sequence[int]) -> ForwardBatch:
    """So many rows of each sequence, a chain of drafts behind its own `past` committed tokens."""
    storage = runner.storage
    size = -(-past // storage.block_size)
    places = max(1, storage.num_blocks - size + 1)  # where blocks are few, sequences share some
    plans = []
    for number, rows in enumerate(lengths):
        tree = TreeTopology((*range(-1, rows - 1),), (0,) * rows, (0,) * rows)
        first = number * size % places
        blocks = list(range(first, first + size))
        plans.append(SegmentPlan([], tree.fill_with(0), past, blocks, 0))
    longest = past + max(lengths)
    return ForwardBatch.build(plans, storage.block_size, storage.scratch_block, 1, longest)


def trial_forward(runner: ModelRunner) -> Callable[[Sequence[int], int], None]:
    """Runs so many rows of each sequence behind so many committed tokens, and waits for them."""

    def forward(lengths: Sequence[int], past: int) -> None:
        runner.execute(trial_batch(runner, past, lengths)).logits.argmax(dim=-1).tolist()

    return forward


def trial_ranking(runner: ModelRunner, tokens: Tensor | None = None) -> Callable[[int], None]:
    """Ranks so many nodes' children as a drafter does, without a successor head.

    tokens: as `ModelRunner.draft_head`'s.
    """
    state, head = runner.mask_embeddings[:1], runner.draft_head(tokens, None)

    def rank(nodes: int) -> None:
        group = MaskGroup(state, bonus_token=0, keys=[None])
        branches = Branches([group], [1.0], head)
        branches.rank([Parent(0, 0, 0)] * nodes, WIDTH)

    return rank
