"""A forward of any size that changes nothing: to time it, or to have it compiled."""

from __future__ import annotations

from collections.abc import Callable

from engine.batch import ForwardBatch, SegmentPlan
from engine.model.runner import ModelRunner
from engine.speculation.tree import TreeTopology


def trial_forward(runner: ModelRunner, past: int) -> Callable[[int], None]:
    """Runs so many rows of one sequence with `past` committed tokens, and waits for them."""
    storage = runner.storage
    blocks = list(range(-(-past // storage.block_size)))

    def forward(rows: int) -> None:
        tree = TreeTopology((*range(-1, rows - 1),), (0,) * rows, (0,) * rows)
        plan = SegmentPlan([], tree.fill_with(0), past, blocks, 0)
        batch = ForwardBatch.build(
            [plan], storage.block_size, storage.scratch_block, 1, past + rows
        )
        runner.execute(batch).logits.argmax(dim=-1).tolist()

    return forward
