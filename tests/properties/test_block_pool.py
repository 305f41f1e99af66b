"""BlockPool under any order of operations, beside a model that only counts references."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.cache.block_pool import BlockPool
from engine.cache.prefix import block_hashes, longest_cached_prefix

NUM_BLOCKS, BLOCK_SIZE = 7, 2
# Few tokens and short texts: prefixes are shared and blocks run out all the time.
texts = st.lists(st.integers(0, 1), max_size=4 * BLOCK_SIZE)
indices = st.integers(0, 100)


class PoolMachine(RuleBasedStateMachine):
    """Sequences start (with a prefix hit where there is one) and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS, BLOCK_SIZE)
        self.content: dict[int, bytes] = {}
        self.tables: list[list[int]] = []

    @rule(tokens=texts)
    def start(self, tokens):
        hashes = block_hashes(tokens, BLOCK_SIZE)
        cached = longest_cached_prefix(self.pool, hashes)
        # What is found holds the KV of exactly this text.
        assert [self.content[block_id] for block_id in cached] == hashes[: len(cached)]
        self.pool.touch(cached)
        missing = -(-len(tokens) // BLOCK_SIZE) - len(cached)
        if not self.pool.can_allocate(missing):
            self.pool.free(cached)
            return
        free = self.pool.num_free
        fresh = self.pool.allocate(missing)
        assert self.pool.num_free == free - missing
        held = {block_id for table in self.tables for block_id in table}
        assert not held & set(fresh)
        table = cached + fresh
        for block_id in fresh:
            self.content.pop(block_id, None)
        for i in range(len(cached), len(hashes)):
            self.content[table[i]] = hashes[i]
            self.pool.register(table[i], hashes[i])
        self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(index=indices)
    def end(self, index):
        self.pool.free(self.tables.pop(index % len(self.tables)))

    @precondition(lambda self: self.tables)
    @rule(index=indices)
    def fork(self, index):
        table = self.tables[index % len(self.tables)]
        self.pool.touch(table)
        self.tables.append(list(table))

    @invariant()
    def pool_is_sound(self):
        self.pool.check_integrity()
        held = Counter(block_id for table in self.tables for block_id in table)
        assert self.pool.num_free == NUM_BLOCKS - len(held)
        assert 0 <= self.pool.usage <= 1


TestBlockPool = PoolMachine.TestCase
TestBlockPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
