"""Attention by our own Triton kernels: the path on CUDA.

Nothing is gathered and no mask is built: a program reads the KV blocks where they lie. What it has
to know of the step is one int64 array, sent to the device once for all layers. Prefill chunks go
the same way, in the kernel's causal form: a dense mask of rows times columns would cost more host
time than the step, and torch has no fast kernel for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from engine.attention.interface import LayerCall
from engine.batch import ForwardBatch, Segment
from engine.cache.storage import KVStorage
from engine.kernels.tree_attention import TILE_FIELDS, attend_parts, join_parts

WORD_BITS = 64
WORD_MASK = (1 << WORD_BITS) - 1


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the rows of a segment are cut. It follows from the segment alone, never from its company.

    rows: folded rows (a row and query head) a program takes. part: past tokens of one part.
    """

    rows: int
    part: int

    @classmethod
    def of(cls, segment: Segment, share: int) -> Tiling:
        """share: query heads of a KV head."""
        folded = segment.num_rows * share
        if folded <= 16:
            return PLAIN
        return TREE if segment.num_rows <= LONGEST_TREE else PREFILL


# Plain decoding reads the past with few rows: many small parts fill the machine. A tree's partial
# sums are a row's worth each and want larger parts; a prefill chunk has programs enough with one.
PLAIN, TREE, PREFILL = Tiling(16, 256), Tiling(64, 512), Tiling(64, 1 << 30)
LONGEST_TREE = 128
# Of keys a program reads at once: small enough for GPUs with 99 KiB of shared memory.
TILE_BYTES = 8192
# Sums a program keeps in registers before it takes twice the threads.
WIDE = 8192
# Rows and query heads whose parts one program joins.
JOINED = 4
# A pointer to 16 aligned bytes and one to 8 are two kernels to Triton, and a pause to compile each.
ALIGNED = 2


@dataclass(frozen=True, slots=True)
class _Launch:
    """Tiles of one tiling. tiles: int64 `[tiles, TILE_FIELDS]`. parts: most parts of any."""

    tiling: Tiling
    tiles: Tensor
    parts: int


class PagedStep:
    """One batch, as tables on the device."""

    def __init__(self, batch: ForwardBatch, storage: KVStorage, num_prompts: list[int]) -> None:
        self.batch, self.storage, self.num_prompts = batch, storage, num_prompts
        self.slots = storage.step_slots(batch.scratch_slots)
        self._share = 0

    def forward(self, query: Tensor, key: Tensor, value: Tensor, call: LayerCall) -> Tensor:
        """As `AttentionStep.forward`."""
        self.storage.write(call.layer, self.slots, key, value)
        rows, heads, key_dim = query.shape
        share = heads // key.shape[1]
        if share != self._share:
            self._lay_out(share)
        keys, values = self.storage.keys[call.layer], self.storage.values[call.layer]
        value_dim = values.shape[2]
        if query.stride(2) != 1:
            query = query.contiguous()
        partial = (self.num_partials, heads)
        acc = torch.empty(*partial, value_dim, dtype=torch.float32, device=query.device)
        total, top = torch.empty(2, *partial, dtype=torch.float32, device=query.device)
        key_pad, value_pad = (max(16, triton.next_power_of_2(d)) for d in (key_dim, value_dim))
        columns = min(64, max(16, TILE_BYTES // (key_pad * keys.element_size())))
        for launch in self._launches:
            attend_parts[(len(launch.tiles), key.shape[1], launch.parts)](
                query, keys, values, acc, total, top,
                launch.tiles, self._table, self._positions, self._words, self._offsets,
                query.stride(0), query.stride(1), keys.stride(0), keys.stride(1),
                values.stride(0), values.stride(1),
                self._num_words, heads, call.scaling, launch.tiling.part,
                SOFTCAP=call.softcap or 0.0, SHARE=share, KEY_DIM=key_dim, VALUE_DIM=value_dim,
                KEY_PAD=key_pad, VALUE_PAD=value_pad, BLOCK_SIZE=self.storage.block_size,
                ROWS=launch.tiling.rows, COLUMNS=columns,
                WINDOW=call.scope.window or 0, CHUNK=call.scope.chunk or 0,
                TILE_WIDTH=TILE_FIELDS, num_stages=2,
                num_warps=8 if launch.tiling.rows * value_pad > WIDE else 4,
            )  # fmt: skip
        out = torch.empty(rows, heads, value_dim, dtype=query.dtype, device=query.device)
        sinks = acc if call.sinks is None else call.sinks.float()
        join_parts[(triton.cdiv(rows * heads, JOINED),)](
            acc, total, top, out, self._offsets, sinks, rows, heads,
            VALUE_DIM=value_dim, VALUE_PAD=value_pad,
            OUTPUTS=JOINED, SINKS=call.sinks is not None,
        )  # fmt: skip
        return out

    def _lay_out(self, share: int) -> None:
        """Tables of the step; the first layer knows how many query heads share a KV head."""
        self._share = share
        batch = self.batch
        table: list[int] = []
        offsets = np.zeros(batch.num_rows + 1, np.int64)
        tiles: dict[Tiling, list[list[int]]] = {}
        parts: dict[Tiling, int] = {}
        for segment in batch.segments:
            tiling = Tiling.of(segment, share)
            needed = 1 + -(-segment.num_past // tiling.part)
            parts[tiling] = max(parts.get(tiling, 0), needed)
            offsets[segment.start + 1 : segment.start + segment.num_rows + 1] = needed
            facts = self._facts(segment, len(table))
            tiles.setdefault(tiling, []).extend(
                [first, *facts] for first in range(0, segment.num_rows * share, tiling.rows)
            )
            table += segment.blocks
        offsets = np.cumsum(offsets)
        words = visibility_words(batch)
        self._num_words = words.shape[1]
        self.num_partials = int(offsets[-1])
        arrays = [np.array(table, np.int64), batch.positions, words.reshape(-1), offsets]
        arrays += [np.array(t, np.int64).reshape(-1) for t in tiles.values()]
        arrays = [np.pad(a, (0, len(a) % ALIGNED)) for a in arrays]
        sent = torch.from_numpy(np.concatenate(arrays)).to(self.storage.keys.device)
        self._table, self._positions, self._words, self._offsets, *cut = sent.split(
            [len(a) for a in arrays]
        )
        self._launches = [
            _Launch(tiling, tiled.view(-1, TILE_FIELDS), parts[tiling])
            for tiling, tiled in zip(tiles, cut, strict=True)  # TILE_FIELDS is even: no padding
        ]

    def _facts(self, segment: Segment, first_block: int) -> Sequence[int]:
        """What `attend_parts` reads of a tile behind its first folded row."""
        size, storage = self.storage.block_size, self.storage
        layout, prompts = segment.layout, self.num_prompts[segment.adapter]
        first_mask = segment.num_causal + layout.num_nodes if layout else segment.num_rows
        return (
            segment.start,
            segment.num_rows,
            segment.num_causal,
            segment.num_past,
            first_block,
            segment.scratch_block * size,
            storage.prompt_block_ids(segment.adapter, 0).start * size,
            prompts if first_mask < segment.num_rows else 0,
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
