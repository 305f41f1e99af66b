"""Attention whose result for a row is the same, bit by bit, whatever else the step computes.

Sums of floats depend on their order. Here a row's keys come in the order of their positions,
`CHUNK` at a time, whether they are committed or lie in the step buffer, and every row is a batch
entry of its own: products have one shape, however many sequences, drafts and past tokens there
are, and batched products compute each entry by itself (`engine.model.invariance` checks it).
Chunks behind a row's last key change nothing, exactly: they add zeros and scale by one. The
softmax over chunks is the online one (Milakov and Gimelshein, arXiv 1805.02867).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.attention.columns import Columns
from engine.attention.interface import LayerCall, Scope
from engine.attention.mask import visible
from engine.batch import ForwardBatch
from engine.cache.storage import KVStorage

CHUNK = 64


class InvariantStep:
    """One batch; rows that the runner pads it with attend to nothing and give zeros."""

    def __init__(self, batch: ForwardBatch, storage: KVStorage, num_prompts: list[int]) -> None:
        self.batch, self.storage, self.num_prompts = batch, storage, num_prompts
        self.slots = storage.step_slots(batch.scratch_slots)
        self._keys: dict[Scope, list[tuple[Tensor, Tensor]]] = {}

    def forward(self, query: Tensor, key: Tensor, value: Tensor, call: LayerCall) -> Tensor:
        """As `AttentionStep.forward`, in float32 until the end."""
        rows, heads = self.batch.num_rows, key.shape[1]
        self.storage.write(call.layer, self.slots, key[:rows], value[:rows])
        # An entry is a row's KV head, with the query heads that share it.
        entries = query[:rows].reshape(rows * heads, -1, query.shape[2]).float()
        top = entries.new_full((*entries.shape[:2], 1), float("-inf"))
        total = torch.zeros_like(top)
        out = entries.new_zeros(*entries.shape[:2], value.shape[2])
        for lines, hidden in self._chunks(call.scope, heads):
            keys, values = (
                kv[call.layer]
                .flatten(0, 1)
                .index_select(0, lines)
                .view(-1, CHUNK, kv.shape[3])
                .float()
                for kv in (self.storage.keys, self.storage.values)
            )
            scores = torch.bmm(entries, keys.transpose(1, 2)) * call.scaling
            if call.softcap is not None:
                scores = call.softcap * torch.tanh(scores / call.softcap)
            scores.masked_fill_(hidden, float("-inf"))
            highest = torch.maximum(top, scores.amax(dim=2, keepdim=True))
            weights, scale = torch.exp(scores - highest), torch.exp(top - highest)
            total = total * scale + weights.sum(dim=2, keepdim=True)
            out = out * scale + torch.bmm(weights, values)
            top = highest
        if call.sinks is not None:
            sinks = call.sinks.float().view(heads, -1, 1).repeat(rows, 1, 1)
            total = total + torch.exp(sinks - top)
        answer = value.new_zeros(*query.shape[:2], value.shape[2])
        answer[:rows] = (out / total).view(rows, -1, value.shape[2])
        return answer

    def _chunks(self, scope: Scope, heads: int) -> list[tuple[Tensor, Tensor]]:
        """Chunk by chunk the lines of every entry's keys and which of them there are not.

        A line is a KV head's part of a slot: int64 `[rows * heads * CHUNK]`, and bool
        `[rows * heads, 1, CHUNK]`. Layers of equal scope share them.
        """
        if scope not in self._keys:
            seen = [row for segment in self._seen(scope) for row in segment]
            width = max(-(-len(slots) // CHUNK) for slots in seen) * CHUNK
            slots = np.zeros((len(seen), width), np.int64)
            hidden = np.ones(slots.shape, np.bool_)
            for row, own in enumerate(seen):
                slots[row, : len(own)] = own
                hidden[row, : len(own)] = False
            lines = slots[:, None] * heads + np.arange(heads)[:, None]
            hidden = hidden.repeat(heads, axis=0)[:, None]
            self._keys[scope] = [
                (
                    self._tensor(lines[..., first : first + CHUNK].reshape(-1)),
                    self._tensor(hidden[..., first : first + CHUNK]),
                )
                for first in range(0, width, CHUNK)
            ]
        return self._keys[scope]

    def _seen(self, scope: Scope) -> list[list[NDArray[np.int64]]]:
        """Of every segment's rows the slots they see: past and path by position, then prompts."""
        size = self.storage.block_size
        found = []
        for segment in self.batch.segments:
            columns = Columns.of(segment, self.storage, self.num_prompts)
            positions = self.batch.positions[segment.start : segment.start + segment.num_rows]
            seen = visible(segment, positions, scope, *columns.widths, columns.num_prompts)
            slots = (np.array(columns.blocks)[:, None] * size + np.arange(size)).reshape(-1)
            found.append([slots[row] for row in seen])
        return found

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.storage.keys.device)
