"""The second route: models without transformers' attention interface (Falcon, GPT-J).

They run their own eager attention, given an explicit 4-D mask and a cache object of ours whose
`update` stores the fresh K/V and returns what the segments see, one after the other; the mask
keeps the segments apart. Costs rows x all columns: for compatibility, not for speed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.attention.columns import Columns
from engine.attention.interface import Scope
from engine.attention.mask import visible
from engine.batch import ForwardBatch
from engine.cache.storage import KVStorage


class MaskedStepCache:
    """Looks like a transformers cache to the model for the length of one forward."""

    is_compileable = False

    def __init__(self, batch: ForwardBatch, storage: KVStorage, num_prompts: list[int]) -> None:
        self.storage = storage
        device = storage.keys.device
        self.slots = storage.step_slots(batch.scratch_slots)
        columns = [Columns.of(s, storage, num_prompts) for s in batch.segments]
        self.blocks = torch.tensor([b for c in columns for b in c.blocks], device=device)
        total = len(self.blocks) * storage.block_size
        seen = np.zeros((batch.num_rows, total), np.bool_)
        first = 0
        for segment, part in zip(batch.segments, columns, strict=True):
            rows = slice(segment.start, segment.start + segment.num_rows)
            seen[rows, first : first + sum(part.widths)] = visible(
                segment, batch.positions[rows], Scope(), *part.widths, part.num_prompts
            )
            first += sum(part.widths)
        dtype = storage.keys.dtype
        # Eager attention adds the mask: the lowest finite value keeps fully padded sums finite.
        self.mask = torch.zeros(1, 1, *seen.shape, dtype=dtype, device=device)
        self.mask.masked_fill_(~torch.from_numpy(seen).to(device), torch.finfo(dtype).min)

    def update(
        self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """key, value `[1, kv_heads, rows, dim]` -> all segments' columns, of the same shape."""
        self.storage.write(layer, self.slots, key[0].transpose(0, 1), value[0].transpose(0, 1))
        keys, values = (
            blocks[layer].index_select(0, self.blocks).flatten(0, 1).transpose(0, 1)[None]
            for blocks in (self.storage.key_blocks, self.storage.value_blocks)
        )
        return keys, values

    def get_seq_length(self, *_: Any) -> int:
        """Positions and mask are given, so that the model has no use for a length."""
        return 0

    def get_mask_sizes(self, query_length: int, *_: Any) -> tuple[int, int]:
        """Columns and offset of the mask, which is given."""
        return self.mask.shape[-1], 0
