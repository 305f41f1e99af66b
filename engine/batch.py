"""The flat rows of one forward.

A step runs T rows without padding. The rows of a sequence lie together: first its uncomputed
tokens but the last (causal), then the root and the draft tree's nodes, then the mask groups.
What a row sees follows from `adapters.visibility`: bit j of a tree row's word stands for row j
counted from the root; causal rows see every earlier row of their sequence.

This module knows no model and no scheduler: it turns what was scheduled into arrays.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from adapters.visibility import RowLayout, lay_out
from engine.speculation.tree import DraftTree


class RowKind(Enum):
    """What a row is."""

    PREFILL = "prefill"
    ROOT = "root"
    NODE = "node"
    MASK = "mask"


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """One sequence's part of a step, as the scheduler decided it.

    causal_ids: uncomputed tokens to run as plain prefill, without the root.
    tree: root and drafts, or None while the prompt is not finished with this step.
    num_past: committed tokens, whose KV lie in `block_table`.
    adapter: slot of the adapter whose masks and prompts are used.
    """

    causal_ids: list[int]
    tree: DraftTree | None
    num_past: int
    block_table: list[int]
    adapter: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `start` to `start + num_rows` of the batch: one sequence.

    num_causal rows come first; `layout` is that of the tree rows behind them (None without).
    blocks: KV blocks that hold the `num_past` committed tokens, the last one perhaps in part.
    scratch_block: first block of the step buffer that holds this segment's fresh K/V.
    """

    start: int
    num_rows: int
    num_causal: int
    num_past: int
    layout: RowLayout | None
    blocks: list[int]
    scratch_block: int
    adapter: int

    @property
    def root(self) -> int:
        """Batch row of the root."""
        return self.start + self.num_causal

    def next_block(self, block_size: int) -> int:
        """First block of the step buffer behind this segment's."""
        return self.scratch_block + -(-self.num_rows // block_size)

    def mask_row(self, groups: Seq[int], node: int) -> int:
        """Batch row of the first mask behind `node`, given all groups' sizes."""
        return self.root + len(groups) + sum(groups[:node])


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """token_ids, positions: int64 `[rows]`; a mask row's token id is 0.

    mask_rows: batch rows that are masks. mask_slots: `adapter slot * masks an adapter may have +
    mask index` of each. logit_rows: rows whose next token is wanted (roots and nodes).
    scratch_slots: int64 `[rows]`, where each row's fresh K/V go.
    """

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    mask_rows: NDArray[np.int64]
    mask_slots: NDArray[np.int64]
    logit_rows: NDArray[np.int64]
    scratch_slots: NDArray[np.int64]
    segments: list[Segment]

    @property
    def num_rows(self) -> int:
        """Rows of the forward."""
        return len(self.token_ids)

    def count(self) -> dict[RowKind, int]:
        """Rows by kind."""
        roots = sum(s.layout is not None for s in self.segments)
        nodes = sum(s.layout.num_nodes - 1 for s in self.segments if s.layout)
        return {
            RowKind.PREFILL: sum(s.num_causal for s in self.segments),
            RowKind.ROOT: roots,
            RowKind.NODE: nodes,
            RowKind.MASK: len(self.mask_rows),
        }

    def padded(self, rows: int, block_size: int) -> ForwardBatch:
        """The same with more rows, up to `rows`: a segment of their own that nobody asked for."""
        missing = rows - self.num_rows
        if not missing:
            return self
        block = self.segments[-1].next_block(block_size)
        idle = Segment(self.num_rows, missing, missing, 0, None, [], block, adapter=0)
        scratch = np.arange(block * block_size, block * block_size + missing)
        return replace(
            self,
            token_ids=np.pad(self.token_ids, (0, missing)),
            positions=np.pad(self.positions, (0, missing)),
            scratch_slots=np.concatenate([self.scratch_slots, scratch]),
            segments=[*self.segments, idle],
        )

    @classmethod
    def build(
        cls,
        plans: Seq[SegmentPlan],
        block_size: int,
        scratch_block: int,
        masks_per_slot: int,
        max_positions: int,
    ) -> ForwardBatch:
        """Lay the plans' rows one after the other.

        scratch_block: first block of the step buffer. masks_per_slot: stride of `mask_slots`.
        max_positions: drafts past the model's last position can never be emitted; they are kept
        at it, since learned positions end there.
        """
        ids: list[int] = []
        positions: list[int] = []
        mask_rows: list[int] = []
        mask_slots: list[int] = []
        logit_rows: list[int] = []
        scratch: list[int] = []
        segments: list[Segment] = []
        for plan in plans:
            start = len(ids)
            ids += plan.causal_ids
            positions += range(plan.num_past, plan.num_past + len(plan.causal_ids))
            layout = None
            if plan.tree is not None:
                topology = plan.tree.topology
                groups = [(node, size) for node, size in enumerate(topology.masks) if size]
                layout = lay_out(topology.parents, groups)
                root = len(ids)
                logit_rows += range(root, root + layout.num_nodes)
                ids += plan.tree.token_ids
                mask_rows += range(len(ids), root + len(layout.words))
                ids += [0] * (len(layout.words) - layout.num_nodes)
                for _, size in groups:
                    first = plan.adapter * masks_per_slot
                    mask_slots += range(first, first + size)
                base = plan.num_past + len(plan.causal_ids)
                positions += [base + p for p in layout.positions]
            num_rows = len(ids) - start
            scratch += range(scratch_block * block_size, scratch_block * block_size + num_rows)
            num_blocks = -(-plan.num_past // block_size)
            segments.append(
                Segment(
                    start=start,
                    num_rows=num_rows,
                    num_causal=len(plan.causal_ids),
                    num_past=plan.num_past,
                    layout=layout,
                    blocks=plan.block_table[:num_blocks],
                    scratch_block=scratch_block,
                    adapter=plan.adapter,
                )
            )
            scratch_block = segments[-1].next_block(block_size)
        positions = [min(p, max_positions - 1) for p in positions]
        return cls(
            token_ids=np.array(ids, np.int64),
            positions=np.array(positions, np.int64),
            mask_rows=np.array(mask_rows, np.int64),
            mask_slots=np.array(mask_slots, np.int64),
            logit_rows=np.array(logit_rows, np.int64),
            scratch_slots=np.array(scratch, np.int64),
            segments=segments,
        )
