"""KV blocks as ids: who holds which, and which full ones can be found again by their hash.

A block is in exactly one of three places: held by sequences (`ref_count > 0`), evictable (free,
but full and findable by its hash until it is reused), or blank (free, nothing worth keeping).
Every operation is O(1) a block.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

BlockHash: TypeAlias = bytes


@dataclass(slots=True)
class Block:
    """ref_count: sequences that hold it. block_hash: of its tokens and all before, if findable."""

    block_id: int
    ref_count: int = 0
    block_hash: BlockHash | None = None


class BlockPool:
    """Hands out the blocks `0 .. num_blocks - 1`, each of `block_size` tokens."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self._blocks = [Block(block_id) for block_id in range(num_blocks)]
        self._blank = list(reversed(range(num_blocks)))
        # Least recently freed first: the next to be evicted.
        self._evictable: OrderedDict[int, None] = OrderedDict()
        self._by_hash: dict[BlockHash, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks no sequence holds; evictable ones count, since they can be reused."""
        return len(self._blank) + len(self._evictable)

    @property
    def usage(self) -> float:
        """Fraction of the blocks that sequences hold, in [0, 1]."""
        return 1 - self.num_free / self.num_blocks

    def can_allocate(self, n: int) -> bool:
        """Whether `allocate(n)` may be called."""
        return n <= self.num_free

    def allocate(self, n: int) -> list[int]:
        """Hold `n` blocks with a reference each; the caller has asked `can_allocate(n)`.

        Blank blocks go first, then the least recently used evictable ones lose their content.
        """
        assert self.can_allocate(n), f"{n} blocks asked of {self.num_free} free ones"
        return [self._take() for _ in range(n)]

    def touch(self, block_ids: Iterable[int]) -> None:
        """Add a reference to blocks that are held or findable."""
        for block_id in block_ids:
            block = self._blocks[block_id]
            if block.ref_count == 0:
                assert block.block_hash is not None, f"block {block_id} is blank"
                del self._evictable[block_id]
            block.ref_count += 1

    def free(self, block_ids: Sequence[int]) -> None:
        """Drop a reference to each block; `block_ids` is a block table, in order of the text.

        The tail is freed first, thus evicted first: a prefix is of use to more requests than
        what follows it, and of no use to anyone once a block before it is gone.
        """
        for block_id in reversed(block_ids):
            block = self._blocks[block_id]
            assert block.ref_count > 0, f"block {block_id} is free already"
            block.ref_count -= 1
            if block.ref_count == 0:
                if block.block_hash is None:
                    self._blank.append(block_id)
                else:
                    self._evictable[block_id] = None

    def register(self, block_id: int, block_hash: BlockHash) -> None:
        """Make a held block findable: it is full and its KV is committed.

        Where another block holds this hash already, that one stays the findable one.
        """
        block = self._blocks[block_id]
        assert block.ref_count > 0, f"block {block_id} is free"
        assert block.block_hash in (None, block_hash), f"block {block_id} has another hash"
        if self._by_hash.setdefault(block_hash, block_id) == block_id:
            block.block_hash = block_hash

    def lookup(self, block_hash: BlockHash) -> int | None:
        """The block with this hash, or None. It stays valid once it is touched."""
        return self._by_hash.get(block_hash)

    def check_integrity(self) -> None:
        """Every block is in exactly one place and every hash leads to its block.

        Raises:
            AssertionError: saying which block breaks the rule.
        """
        listed = Counter([*self._blank, *self._evictable])
        blank = set(self._blank)
        for block in self._blocks:
            name, held = f"block {block.block_id}", block.ref_count > 0
            assert block.ref_count >= 0, f"{name} has {block.ref_count} references"
            times = listed.pop(block.block_id, 0)
            assert times == (not held), (
                f"{name} with {block.ref_count} references is free {times} times"
            )
            if block.block_hash is not None:
                assert block.block_id not in blank, f"{name} is blank but has a hash"
                owner = self._by_hash.get(block.block_hash)
                assert owner == block.block_id, f"{name}'s hash leads to {owner}"
            elif not held:
                assert block.block_id in blank, f"{name} is evictable but has no hash"
        assert not listed, f"free blocks {sorted(listed)} do not exist"
        for block_hash, block_id in self._by_hash.items():
            assert self._blocks[block_id].block_hash == block_hash, (
                f"a hash leads to block {block_id}, which does not have it"
            )

    def _take(self) -> int:
        if self._blank:
            block_id = self._blank.pop()
        else:
            block_id, _ = self._evictable.popitem(last=False)
            block_hash = self._blocks[block_id].block_hash
            assert block_hash is not None, f"block {block_id} is evictable but has no hash"
            del self._by_hash[block_hash]
        self._blocks[block_id] = Block(block_id, ref_count=1)
        return block_id
