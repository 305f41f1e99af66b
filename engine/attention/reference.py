"""The oracle: slow, obvious, float32, one row at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.attention.columns import Columns
from engine.attention.interface import LayerCall
from engine.attention.mask import visible
from engine.batch import ForwardBatch
from engine.cache.storage import KVStorage


class ReferenceStep:
    """For every row: gather exactly the keys it sees, softmax in float32, sum the values."""

    def __init__(self, batch: ForwardBatch, storage: KVStorage, num_prompts: list[int]) -> None:
        self.batch, self.storage, self.num_prompts = batch, storage, num_prompts
        self.slots = storage.step_slots(batch.scratch_slots)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, call: LayerCall) -> Tensor:
        """As `AttentionStep.forward`."""
        self.storage.write(call.layer, self.slots, key, value)
        group = query.shape[1] // key.shape[1]
        out = query.new_empty(*query.shape[:2], value.shape[2])
        for segment in self.batch.segments:
            columns = Columns.of(segment, self.storage, self.num_prompts)
            positions = self.batch.positions[segment.start : segment.start + segment.num_rows]
            seen = torch.from_numpy(
                visible(segment, positions, call.scope, *columns.widths, columns.num_prompts)
            )
            blocks = torch.tensor(columns.blocks)
            keys = self.storage.key_blocks[call.layer][blocks].flatten(0, 1).float()
            values = self.storage.value_blocks[call.layer][blocks].flatten(0, 1).float()
            for row in range(segment.num_rows):
                q = query[segment.start + row].float()
                k = keys[seen[row]].repeat_interleave(group, dim=1)
                v = values[seen[row]].repeat_interleave(group, dim=1)
                scores = torch.einsum("hd,shd->hs", q, k) * call.scaling
                if call.softcap is not None:
                    scores = call.softcap * torch.tanh(scores / call.softcap)
                if call.sinks is not None:
                    scores = torch.cat([scores, call.sinks.float()[:, None]], dim=1)
                weights = scores.softmax(dim=1)[:, : k.shape[0]]
                out[segment.start + row] = torch.einsum("hs,shd->hd", weights, v).to(out.dtype)
        return out
