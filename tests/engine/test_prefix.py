"""Prefix hashes: equal exactly for equal beginnings, and found as far as the pool reaches."""

import pytest

from engine.cache.block_pool import BlockPool
from engine.cache.prefix import ROOT, block_hashes, hash_block, longest_cached_prefix


def test_only_full_blocks_have_a_hash():
    assert [len(block_hashes(range(n), 4)) for n in (0, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]


def test_a_hash_covers_everything_before_it():
    one, other = block_hashes([1, 2, 3, 4, 5, 6], 2), block_hashes([1, 9, 3, 4, 5, 6], 2)
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_equal_beginnings_have_equal_hashes():
    one, other = block_hashes([1, 2, 3, 4, 5, 6], 2), block_hashes([1, 2, 3, 4, 5, 7], 2)
    assert one[:2] == other[:2]
    assert one[2] != other[2]


def test_a_text_can_be_hashed_in_parts():
    tokens = list(range(300, 312))
    head = block_hashes(tokens[:8], 4)
    assert head + block_hashes(tokens[8:], 4, head[-1]) == block_hashes(tokens, 4)


def test_token_boundaries_matter():
    assert hash_block(ROOT, [1, 256]) != hash_block(ROOT, [1 + (256 << 8)])
    assert hash_block(ROOT, [1]) != hash_block(ROOT, [1, 0])


def test_a_parent_must_be_a_hash():
    with pytest.raises(AssertionError, match="no block hash"):
        hash_block(b"short", [1])


def test_the_cached_prefix_ends_at_the_first_block_that_is_gone():
    pool = BlockPool(8, 2)
    hashes = block_hashes([1, 2, 3, 4, 5, 6, 7, 8], 2)
    blocks = pool.allocate(4)
    assert longest_cached_prefix(pool, hashes) == []
    for i in (0, 1, 3):
        pool.register(blocks[i], hashes[i])
    assert longest_cached_prefix(pool, hashes) == blocks[:2]
    assert longest_cached_prefix(pool, hashes[:1]) == blocks[:1]
