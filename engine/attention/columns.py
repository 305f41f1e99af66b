"""The columns a segment attends to, as blocks of the KV storage."""

from __future__ import annotations

from dataclasses import dataclass

from engine.batch import Segment
from engine.cache.storage import KVStorage


@dataclass(frozen=True, slots=True)
class Columns:
    """blocks: past, fresh rows, prompts, in this order. widths: columns of each of the three.

    num_prompts: prompts that are real among the last ones.
    """

    blocks: list[int]
    widths: tuple[int, int, int]
    num_prompts: int

    @classmethod
    def of(
        cls,
        segment: Segment,
        storage: KVStorage,
        num_prompts: list[int],
        past_blocks: int = 0,
        fresh_blocks: int = 0,
    ) -> Columns:
        """Columns of a segment, past and fresh rows padded to at least so many blocks.

        num_prompts: prompts of each adapter slot. Padding repeats block 0, which no row sees.
        """
        size = storage.block_size
        past = segment.blocks + [0] * (past_blocks - len(segment.blocks))
        count = -(-segment.num_rows // size)
        fresh = list(range(segment.scratch_block, segment.scratch_block + count))
        fresh += [0] * (fresh_blocks - count)
        has_masks = segment.layout is not None and len(segment.layout.words) > (
            segment.layout.num_nodes
        )
        real = num_prompts[segment.adapter] if has_masks else 0
        prompts = list(storage.prompt_block_ids(segment.adapter, real))
        return cls(
            past + fresh + prompts,
            (len(past) * size, len(fresh) * size, len(prompts) * size),
            real,
        )
