"""Attention with torch's own kernels: the fast path on CPU, a correct one on CUDA.

Decoding sequences are padded to one batched call, a prefill chunk runs alone. Keys and values
are gathered block by block; the query heads that share a KV head are folded into the query axis,
so that K/V are never repeated.
"""

from __future__ import annotations

from functools import cached_property
from math import inf

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.attention.columns import Columns
from engine.attention.interface import LayerCall, Scope
from engine.attention.mask import visible
from engine.batch import ForwardBatch, Segment
from engine.cache.storage import KVStorage

# A segment of more rows than this is a prefill chunk and not worth padding others to.
MAX_BATCHED_ROWS = 128
# Rows of padding times columns that take as long as one more kernel call, on a CPU.
CALL_COST = 10_000


class SdpaStep:
    """One batch, split into groups of segments that share a kernel call."""

    def __init__(self, batch: ForwardBatch, storage: KVStorage, num_prompts: list[int]) -> None:
        self.storage = storage
        self.slots = storage.step_slots(batch.scratch_slots)
        self.alone = _Alone(batch, storage) if batch.num_rows == 1 else None
        groups: list[list[Segment]] = []
        if self.alone is None:
            small = [s for s in batch.segments if s.num_rows <= MAX_BATCHED_ROWS]
            groups = [[s] for s in batch.segments if s.num_rows > MAX_BATCHED_ROWS]
            groups += _alike(small, storage.block_size)
        self.groups = [_Group(g, batch, storage, num_prompts) for g in groups]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, call: LayerCall) -> Tensor:
        """As `AttentionStep.forward`."""
        self.storage.write(call.layer, self.slots, key, value)
        if self.alone is not None:
            return self.alone.attend(query, key, value, call)
        if len(self.groups) == 1:
            return self.groups[0].attend(query, self.storage, call)
        out = query.new_empty(*query.shape[:2], value.shape[2])
        for group in self.groups:
            out[group.rows] = group.attend(query[group.rows], self.storage, call)
        return out


def _alike(segments: list[Segment], block_size: int) -> list[list[Segment]]:
    """Groups worth padding to the longest among them, each in the order of the batch.

    One sequence with a long draft tree would otherwise have a full server compute its rows for all.
    """
    classes: dict[int, list[Segment]] = {}
    for segment in segments:
        classes.setdefault((segment.num_rows - 1).bit_length(), []).append(segment)
    groups: list[list[Segment]] = []
    for _, longer in sorted(classes.items()):
        if groups:
            longest = max(s.num_rows for s in longer)
            padding = sum((longest - s.num_rows) * len(s.blocks) * block_size for s in groups[-1])
            if padding <= CALL_COST:
                longer = groups.pop() + longer
        groups.append(longer)
    return [sorted(group, key=lambda segment: segment.start) for group in groups]


class _Alone:
    """The only row of a batch, which sees its past and itself: plain decoding of one sequence.

    Nothing is padded, so that there is no mask to build.
    """

    def __init__(self, batch: ForwardBatch, storage: KVStorage) -> None:
        segment, self.storage = batch.segments[0], storage
        self.past = segment.num_past
        # A block more than the past takes, where it fills its last one: room for the row itself.
        blocks = [*segment.blocks, segment.scratch_block][: self.past // storage.block_size + 1]
        self.blocks = torch.tensor(blocks, device=storage.keys.device)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: LayerCall) -> Tensor:
        """As `AttentionStep.forward`, for one row."""
        storage, first = self.storage, self._first(call.scope)
        keys = self._seen(storage.key_blocks[call.layer], key, first)
        values = self._seen(storage.value_blocks[call.layer], value, first)
        folded = query.reshape(1, key.shape[1], -1, query.shape[2])
        out = _softmax_attention(folded, keys, values, None, call)
        return out.reshape(1, query.shape[1], -1)

    def _first(self, scope: Scope) -> int:
        """The first column that is in the row's window and chunk."""
        window = 0 if scope.window is None else self.past + 1 - scope.window
        chunk = 0 if scope.chunk is None else self.past // scope.chunk * scope.chunk
        return max(0, window, chunk)

    def _seen(self, blocks: Tensor, own: Tensor, first: int) -> Tensor:
        """Keys or values of columns `first` to the row itself, `[1, kv_heads, columns, dim]`."""
        skipped, offset = divmod(first, self.storage.block_size)
        gathered = blocks.index_select(0, self.blocks[skipped:]).flatten(0, 1)
        seen = gathered[offset : offset + self.past + 1 - first]
        seen[-1] = own[0]
        return seen.transpose(0, 1)[None]


class _Group:
    """Segments padded to the same number of rows and columns."""

    def __init__(
        self,
        segments: list[Segment],
        batch: ForwardBatch,
        storage: KVStorage,
        num_prompts: list[int],
    ) -> None:
        device = storage.keys.device
        self.segments, self.device, self.dtype = segments, device, storage.keys.dtype
        past = max(len(s.blocks) for s in segments)
        fresh = max(-(-s.num_rows // storage.block_size) for s in segments)
        self.columns = [Columns.of(s, storage, num_prompts, past, fresh) for s in segments]
        widest = max(len(c.blocks) for c in self.columns)
        self.positions = [batch.positions[s.start : s.start + s.num_rows] for s in segments]
        blocks = [c.blocks + [0] * (widest - len(c.blocks)) for c in self.columns]
        self.blocks = torch.tensor(blocks, device=device).flatten()
        self.num_columns = widest * storage.block_size
        self.num_rows = max(s.num_rows for s in segments)
        self._index_rows(segments)
        self._masks: dict[tuple[Scope, int], Tensor] = {}

    @cached_property
    def rows(self) -> Tensor:
        """Of the batch, int64; asked for where there are several groups."""
        return torch.cat(
            [torch.arange(s.start, s.start + s.num_rows, device=self.device) for s in self.segments]
        )

    def _index_rows(self, segments: list[Segment]) -> None:
        """Where the padded rows come from, and where the real ones are among them.

        Counted within the group. Padding repeats a segment's first row: it is computed twice
        and thrown away.
        """
        self.ragged = any(s.num_rows != self.num_rows for s in segments)
        if not self.ragged:
            return
        source: list[int] = []
        real: list[int] = []
        first = 0
        for i, segment in enumerate(segments):
            padding = self.num_rows - segment.num_rows
            source += [*range(first, first + segment.num_rows), *[first] * padding]
            real += range(i * self.num_rows, i * self.num_rows + segment.num_rows)
            first += segment.num_rows
        self.source = torch.tensor(source, device=self.device)
        self.real = torch.tensor(real, device=self.device)

    def attend(self, query: Tensor, storage: KVStorage, call: LayerCall) -> Tensor:
        """query `[rows of the group, heads, dim]` -> `[rows of the group, heads, value_dim]`."""
        batch, heads = len(self.segments), query.shape[1]
        key, value = (
            blocks[call.layer]
            .index_select(0, self.blocks)
            .view(batch, self.num_columns, -1, blocks[call.layer].shape[-1])
            .transpose(1, 2)
            for blocks in (storage.key_blocks, storage.value_blocks)
        )
        kv_heads = key.shape[1]
        share = heads // kv_heads
        if self.ragged:
            query = query.index_select(0, self.source)
        query = (
            query.reshape(batch, self.num_rows, kv_heads, share, -1)
            .permute(0, 2, 3, 1, 4)
            .reshape(batch, kv_heads, share * self.num_rows, -1)
        )
        out = _softmax_attention(query, key, value, self._mask(call.scope, share), call)
        out = (
            out.view(batch, kv_heads, share, self.num_rows, -1)
            .permute(0, 3, 1, 2, 4)
            .reshape(batch * self.num_rows, heads, -1)
        )
        return out.index_select(0, self.real) if self.ragged else out

    def _mask(self, scope: Scope, share: int) -> Tensor:
        """Additive mask `[batch, 1, share * rows, columns]`; layers of equal scope share it."""
        key = (scope, share)
        if key not in self._masks:
            seen = np.zeros((len(self.segments), share, self.num_rows, self.num_columns), np.bool_)
            for i, (segment, columns) in enumerate(zip(self.segments, self.columns, strict=True)):
                part = visible(
                    segment, self.positions[i], scope, *columns.widths, columns.num_prompts
                )
                seen[i, :, : segment.num_rows, : part.shape[1]] = part
                seen[i, :, segment.num_rows :] = seen[i, :, :1]
            yes, no = torch.tensor([0.0, -inf], dtype=self.dtype, device=self.device)
            mask = torch.where(torch.from_numpy(seen).to(self.device), yes, no)
            self._masks[key] = mask.flatten(1, 2)[:, None]
        return self._masks[key]


def _softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, call: LayerCall
) -> Tensor:
    """One softmax over all columns, or those of an additive mask; caps and sinks explicitly."""
    if call.softcap is None and call.sinks is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=call.scaling
        )
    scores = query.float() @ key.float().transpose(2, 3) * call.scaling
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if mask is not None:
        scores = scores + mask
    if call.sinks is not None:
        batch, kv_heads, folded, _ = scores.shape
        sinks = call.sinks.float().view(1, kv_heads, -1, 1, 1)
        rows = folded // sinks.shape[2]
        sinks = sinks.expand(batch, -1, -1, rows, 1).reshape(batch, kv_heads, folded, 1)
        scores = torch.cat([scores, sinks], dim=3)
    weights = scores.softmax(dim=3)[..., : key.shape[2]]
    return (weights @ value.float()).to(query.dtype)
