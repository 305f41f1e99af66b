"""BlockPool: references, eviction order, and who is found by a hash."""

import pytest

from engine.cache.block_pool import BlockPool

HASHES = [bytes([i]) * 32 for i in range(8)]


def filled(pool: BlockPool, *hashes: bytes) -> list[int]:
    """Blocks held by one sequence, full and committed."""
    blocks = pool.allocate(len(hashes))
    for block_id, block_hash in zip(blocks, hashes, strict=True):
        pool.register(block_id, block_hash)
    return blocks


def test_blocks_come_back_when_freed():
    pool = BlockPool(4, 16)
    blocks = pool.allocate(3)
    assert sorted(blocks) == sorted(set(blocks))
    assert (pool.num_free, pool.usage) == (1, 0.75)
    assert pool.can_allocate(1)
    assert not pool.can_allocate(2)
    pool.free(blocks)
    assert (pool.num_free, pool.usage) == (4, 0.0)
    pool.check_integrity()


def test_a_shared_block_is_free_only_when_its_last_holder_lets_go():
    pool = BlockPool(2, 16)
    blocks = filled(pool, HASHES[0])
    pool.touch(blocks)
    pool.free(blocks)
    assert pool.num_free == 1
    pool.free(blocks)
    assert pool.num_free == 2


def test_a_freed_full_block_is_found_until_it_is_reused():
    pool = BlockPool(2, 16)
    [block] = filled(pool, HASHES[0])
    pool.free([block])
    assert pool.lookup(HASHES[0]) == block
    pool.allocate(2)
    assert pool.lookup(HASHES[0]) is None
    pool.check_integrity()


def test_a_touched_block_is_not_evicted():
    pool = BlockPool(2, 16)
    [block] = filled(pool, HASHES[0])
    pool.free([block])
    pool.touch([block])
    assert pool.allocate(1) != [block]
    assert not pool.can_allocate(1)
    assert pool.lookup(HASHES[0]) == block


def test_blank_blocks_are_used_before_findable_ones():
    pool = BlockPool(4, 16)
    pool.free(filled(pool, HASHES[0], HASHES[1]))
    pool.free(pool.allocate(2))
    pool.allocate(2)
    assert pool.lookup(HASHES[0]) is not None
    assert pool.lookup(HASHES[1]) is not None


def test_the_tail_of_a_sequence_is_evicted_before_its_head():
    pool = BlockPool(3, 16)
    pool.free(filled(pool, *HASHES[:3]))
    for kept in (2, 1, 0):
        pool.allocate(1)
        assert [pool.lookup(h) is not None for h in HASHES[:3]] == [i < kept for i in range(3)]


def test_the_least_recently_used_sequence_is_evicted_first():
    pool = BlockPool(2, 16)
    old, new = filled(pool, HASHES[0]), filled(pool, HASHES[1])
    pool.free(old)
    pool.free(new)
    pool.touch(old)
    pool.free(old)
    assert pool.allocate(1) == new


def test_the_first_block_with_a_hash_stays_the_findable_one():
    pool = BlockPool(2, 16)
    first, second = filled(pool, HASHES[0]), filled(pool, HASHES[0])
    assert pool.lookup(HASHES[0]) == first[0]
    pool.free(second)
    assert pool.lookup(HASHES[0]) == first[0]
    assert pool.allocate(1) == second
    pool.check_integrity()


def test_registering_twice_changes_nothing():
    pool = BlockPool(1, 16)
    [block] = filled(pool, HASHES[0])
    pool.register(block, HASHES[0])
    pool.check_integrity()


@pytest.mark.parametrize(
    "misuse",
    [
        lambda pool: pool.allocate(3),
        lambda pool: pool.free([0]),
        lambda pool: pool.touch([0]),
        lambda pool: pool.register(0, HASHES[0]),
        lambda pool: pool.register(filled(pool, HASHES[0])[0], HASHES[1]),
    ],
    ids=["allocate too many", "free twice", "touch a blank", "register a free one", "rehash"],
)
def test_misuse_is_caught(misuse):
    with pytest.raises(AssertionError):
        misuse(BlockPool(2, 16))


def test_a_broken_pool_says_what_is_broken():
    pool = BlockPool(2, 16)
    [block] = pool.allocate(1)
    pool._blank.append(block)
    with pytest.raises(AssertionError, match=f"block {block} with 1 references is free 1 times"):
        pool.check_integrity()
