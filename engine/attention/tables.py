"""What our kernels have to know of a step: tables of int64, made on the host, sent in one piece.

Tables are as long as the step needs, or `padded` to a `Room`: what a CUDA graph was recorded with
must serve every step that it is replayed for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.attention.segments import WORD_BITS, segment_facts, visibility_words
from engine.batch import ForwardBatch, Segment
from engine.cache.storage import KVStorage
from engine.kernels.tree_attention import TILE_FIELDS


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
        if folded <= PLAIN.rows:
            return PLAIN
        return TREE if segment.num_rows <= LONGEST_TREE else PREFILL

    def parts(self, past: int) -> int:
        """Of that many committed tokens, and of the step's own rows."""
        return 1 + -(-past // self.part)


# Plain decoding reads the past with few rows: many small parts fill the machine. A tree's partial
# sums are a row's worth each and want larger parts; a prefill chunk has programs enough with one.
PLAIN, TREE, PREFILL = Tiling(16, 256), Tiling(64, 512), Tiling(64, 1 << 30)
LONGEST_TREE = 128
# A pointer to 16 aligned bytes and one to 8 are two kernels to Triton, and a pause to compile each.
ALIGNED = 2


@dataclass(frozen=True, slots=True)
class Room:
    """What tables are padded to. rows: of the step. context: most committed tokens of a sequence.

    share: query heads of a KV head. No segment is longer than LONGEST_TREE.
    """

    rows: int
    context: int
    share: int

    @property
    def num_partials(self) -> int:
        """Most partial sums of a step: small parts are the most numerous."""
        return self.rows * PLAIN.parts(self.context)

    def num_tiles(self, tiling: Tiling) -> int:
        """Most tiles of a step. One of TREE takes more folded rows than one of PLAIN can."""
        if tiling == PLAIN:
            return self.rows if self.share <= PLAIN.rows else 0
        return self.rows * self.share // (PLAIN.rows + 1)


Table = TypeVar("Table", NDArray[np.int64], Tensor)


@dataclass(frozen=True, slots=True)
class Launch(Generic[Table]):
    """Tiles of one tiling. tiles: `[tiles, TILE_FIELDS]`. parts: most parts of any."""

    tiling: Tiling
    tiles: Table
    parts: int


@dataclass(frozen=True, slots=True)
class StepTables:
    """On the host, int64.

    positions `[rows]`. words `[rows, pieces]`: see `visibility_words`. offsets `[rows + 1]`:
    partial sums before a row. blocks: of all segments. num_partials: partial sums there is to be
    memory for.
    """

    positions: NDArray[np.int64]
    words: NDArray[np.int64]
    offsets: NDArray[np.int64]
    launches: list[Launch[NDArray[np.int64]]]
    blocks: NDArray[np.int64]
    num_partials: int

    @classmethod
    def of(
        cls, batch: ForwardBatch, storage: KVStorage, num_prompts: Sequence[int], share: int
    ) -> StepTables:
        """num_prompts: of each adapter slot. share: query heads of a KV head."""
        blocks: list[int] = []
        offsets = np.zeros(batch.num_rows + 1, np.int64)
        tiles: dict[Tiling, list[list[int]]] = {}
        parts: dict[Tiling, int] = {}
        for segment in batch.segments:
            tiling = Tiling.of(segment, share)
            needed = tiling.parts(segment.num_past)
            parts[tiling] = max(parts.get(tiling, 0), needed)
            offsets[segment.start + 1 : segment.start + segment.num_rows + 1] = needed
            facts = segment_facts(segment, len(blocks), storage, num_prompts)
            tiles.setdefault(tiling, []).extend(
                [first, *facts] for first in range(0, segment.num_rows * share, tiling.rows)
            )
            blocks += segment.blocks
        offsets = np.cumsum(offsets)
        launches = [Launch(t, np.array(rows, np.int64), parts[t]) for t, rows in tiles.items()]
        words = visibility_words(batch)
        table = np.array(blocks, np.int64)
        return cls(batch.positions, words, offsets, launches, table, int(offsets[-1]))

    def padded(self, room: Room) -> StepTables:
        """For a step of `room.rows` rows: all but the blocks as long as they ever are with it."""
        mine = {launch.tiling: launch.tiles for launch in self.launches}
        none = np.zeros((0, TILE_FIELDS), np.int64)
        launches = [
            Launch(t, _lengthen(mine.get(t, none), room.num_tiles(t)), t.parts(room.context))
            for t in (PLAIN, TREE)
            if room.num_tiles(t)
        ]
        pieces = -(-room.rows // WORD_BITS) - self.words.shape[1]
        words = np.pad(self.words, ((0, 0), (0, pieces)))
        return replace(self, words=words, launches=launches, num_partials=room.num_partials)

    def flat(self) -> NDArray[np.int64]:
        """All tables, one after the other; `on` finds them again."""
        return np.concatenate([_lengthen(table, _aligned(table)) for table in self._in_order()])

    def on(self, sent: Tensor) -> DeviceTables:
        """The tables within `flat` on a device, where there may be more than blocks at the end."""
        *counts, _ = [_aligned(table) for table in self._in_order()]
        *cut, blocks = sent.split([*counts, len(sent) - sum(counts)])
        positions, words, offsets, *tiles = cut
        launches = [
            Launch(mine.tiling, theirs[: mine.tiles.size].view(-1, TILE_FIELDS), mine.parts)
            for mine, theirs in zip(self.launches, tiles, strict=True)
        ]
        pieces = self.words.shape[1]
        return DeviceTables(positions, words, offsets, launches, blocks, pieces, self.num_partials)

    def _in_order(self) -> list[NDArray[np.int64]]:
        """Flat tables, the one whose length varies last."""
        tables = [self.positions, self.words, self.offsets, *(x.tiles for x in self.launches)]
        return [table.reshape(-1) for table in (*tables, self.blocks)]


@dataclass(frozen=True, slots=True)
class DeviceTables:
    """As `StepTables`, perhaps longer; words are flat, `num_words` a row."""

    positions: Tensor
    words: Tensor
    offsets: Tensor
    launches: list[Launch[Tensor]]
    blocks: Tensor
    num_words: int
    num_partials: int


def _aligned(table: NDArray[np.int64]) -> int:
    return len(table) + len(table) % ALIGNED


def _lengthen(table: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Zeros behind a table's last row."""
    missing = length - len(table)
    return np.pad(table, ((0, missing), *[(0, 0)] * (table.ndim - 1)))
