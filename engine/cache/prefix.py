"""Which blocks hold the beginning of a text: hashes of full blocks, chained.

A block's hash covers its own tokens and its parent's hash, hence every token before it. KV in
the cache is the base model's own, whichever adapter drafts, so a hash needs nothing else.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from engine.cache.block_pool import BlockHash, BlockPool

_HASH_BYTES = 32

ROOT: BlockHash = bytes(_HASH_BYTES)
"""Parent of a text's first block."""


def root_of(salt: str) -> BlockHash:
    """Parent of the first block of a text that shares KV with texts of the same salt alone."""
    return blake2b(salt.encode(), digest_size=_HASH_BYTES).digest() if salt else ROOT


def hash_block(parent: BlockHash, token_ids: Sequence[int]) -> BlockHash:
    """Hash of a block whose preceding block has hash `parent` (`ROOT` where there is none).

    Cryptographic (BLAKE2b, RFC 7693, 32 bytes): a request that could craft a collision would be
    answered from another's KV. `parent` must have 32 bytes as well, else the seam between it
    and the tokens would be ambiguous.
    """
    assert len(parent) == _HASH_BYTES, f"a parent of {len(parent)} bytes is no block hash"
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=_HASH_BYTES).digest()


def block_hashes(
    token_ids: Sequence[int], block_size: int, start_parent: BlockHash = ROOT
) -> list[BlockHash]:
    """Hashes of the full blocks of `token_ids`, in order; a partial last block has none.

    start_parent: hash of the block before them; continues a text hashed up to there.
    """
    hashes, parent = [], start_parent
    for end in range(block_size, len(token_ids) + 1, block_size):
        parent = hash_block(parent, token_ids[end - block_size : end])
        hashes.append(parent)
    return hashes


def longest_cached_prefix(pool: BlockPool, hashes: Iterable[BlockHash]) -> list[int]:
    """Blocks of the longest run of `hashes`, from the first on, that the pool can find.

    They must be touched before anything is allocated.
    """
    block_ids = []
    for block_hash in hashes:
        block_id = pool.lookup(block_hash)
        if block_id is None:
            break
        block_ids.append(block_id)
    return block_ids
