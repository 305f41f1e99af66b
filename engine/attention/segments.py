"""What our kernels read of a step's segments: numbers of int64, made on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.batch import ForwardBatch, Segment
from engine.cache.storage import KVStorage

WORD_BITS = 64
WORD_MASK = (1 << WORD_BITS) - 1


def segment_facts(
    segment: Segment, first_block: int, storage: KVStorage, num_prompts: Sequence[int]
) -> tuple[int, ...]:
    """Where a segment's rows, blocks and prompts are, as `attend_parts` and attention.h read it.

    first_block: of the segment, in the step's list of blocks. num_prompts: of each adapter slot.
    """
    size, layout = storage.block_size, segment.layout
    first_mask = segment.num_causal + layout.num_nodes if layout else segment.num_rows
    return (
        segment.start,
        segment.num_rows,
        segment.num_causal,
        segment.num_past,
        first_block,
        segment.scratch_block * size,
        storage.prompt_block_ids(segment.adapter, 0).start * size,
        num_prompts[segment.adapter] if first_mask < segment.num_rows else 0,
        first_mask,
    )


def visibility_words(batch: ForwardBatch) -> NDArray[np.int64]:
    """`RowLayout.words` of all rows in 64-bit pieces, int64 `[rows, pieces]`; 0 for causal rows."""
    widest = max((len(s.layout.words) for s in batch.segments if s.layout), default=1)
    pieces = -(-widest // WORD_BITS)
    words = np.zeros((batch.num_rows, pieces), np.uint64)
    for segment in batch.segments:
        if segment.layout is None:
            continue
        rows = words[segment.root : segment.start + segment.num_rows]
        for piece in range(pieces):
            shift = piece * WORD_BITS
            rows[:, piece] = [word >> shift & WORD_MASK for word in segment.layout.words]
    return words.view(np.int64)
