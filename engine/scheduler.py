"""What runs in the next forward.

There is no prefill or decode phase: every running sequence has `num_uncomputed` tokens without
KV, and a step computes as many of them as the row budget allows. Whoever reaches its last token
also verifies a draft tree. Running sequences come first; if blocks run out, the one that came
last gives up its KV and is computed again later.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.cache.block_pool import BlockHash, BlockPool
from engine.cache.prefix import block_hashes, hash_block, longest_cached_prefix
from engine.config import EngineConfig
from engine.errors import EngineOverloaded
from engine.sequence import Sequence, SequenceStatus
from engine.speculation.tree import DraftTree, TreeTopology


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One sequence's share of a step.

    num_causal: uncomputed tokens run without a choice after them. tree: root and drafts where
    the step reaches the sequence's last token.
    """

    sequence: Sequence
    num_causal: int
    tree: DraftTree | None

    @property
    def num_rows(self) -> int:
        """Rows in the forward."""
        return self.num_causal + (self.tree.topology.num_rows if self.tree else 0)

    @property
    def num_nodes(self) -> int:
        """Rows at which a token is chosen."""
        return len(self.tree.token_ids) if self.tree else 0


# The tree of a sequence that nothing is drafted for, given how many decode in this step.
Plan = Callable[[Sequence, int], TreeTopology]


class Scheduler:
    """First come, first served within a priority; chunked prefill; preemption by recompute."""

    def __init__(self, config: EngineConfig, pool: BlockPool, plan: Plan) -> None:
        self.config, self.pool, self.plan = config, pool, plan
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises EngineOverloaded if too many wait already."""
        if len(self.waiting) >= self.config.max_waiting:
            raise EngineOverloaded(f"{len(self.waiting)} requests are waiting already")
        insort(self.waiting, sequence, key=lambda s: s.order)

    @property
    def has_work(self) -> bool:
        """Whether a step would run anything."""
        return bool(self.waiting or self.running)

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and free its blocks."""
        queue = self.running if sequence.is_running else self.waiting
        queue.remove(sequence)
        self._release(sequence)
        sequence.status = SequenceStatus.FINISHED

    def schedule(self) -> list[Scheduled]:
        """Decide the step, reserving blocks for every token it may commit."""
        budget = self.config.max_num_batched_tokens
        decoding = sum(s.num_uncomputed == 1 for s in self.running)
        scheduled: list[Scheduled] = []
        for place, sequence in enumerate(running := list(self.running)):
            if not sequence.is_running or budget < 1:
                continue
            # Drafts and long prompts leave those behind them a row each.
            behind = min(len(running) - place - 1, budget - 1)
            item = self._fit(sequence, budget - behind, max(decoding, 1))
            while not self._reserve(item):
                if item.tree is not None and item.tree.num_drafts:
                    # Nobody is preempted for drafts.
                    item = replace(item, tree=_without_drafts(item.tree))
                    continue
                victim = self._last_in_line()
                self._preempt(victim)
                scheduled = [s for s in scheduled if s.sequence is not victim]
                if victim is sequence:
                    break
            else:
                scheduled.append(item)
                budget -= item.num_rows
        for sequence in list(self.waiting):
            if budget < 1 or len(self.running) >= self.config.max_num_seqs:
                break
            hashes = self._full_block_hashes(sequence)
            cached = longest_cached_prefix(self.pool, hashes)
            if self._is_being_computed(hashes, len(cached)):
                continue
            admitted = self._admit(sequence, hashes, cached, budget, decoding + 1)
            if admitted is None:
                break
            scheduled.append(admitted)
            budget -= admitted.num_rows
        return scheduled

    def committed(self, sequence: Sequence, num_tokens: int) -> None:
        """Note that the KV of the next `num_tokens` tokens lie in the cache now."""
        sequence.num_computed_tokens += num_tokens
        if not self.config.prefix_caching:
            return
        size = self.config.block_size
        hashes = sequence.block_hashes
        for index in range(len(hashes), sequence.num_computed_tokens // size):
            parent = hashes[-1] if hashes else sequence.cache_root
            block = sequence.token_ids[index * size : (index + 1) * size]
            hashes.append(hash_block(parent, block))
        first = (sequence.num_computed_tokens - num_tokens) // size
        for index in range(first, sequence.num_computed_tokens // size):
            self.pool.register(sequence.block_table[index], hashes[index])

    def check_integrity(self) -> None:
        """Block accounting and sequence states agree."""
        self.pool.check_integrity()
        for sequence in self.running:
            assert sequence.is_running
            capacity = len(sequence.block_table) * self.config.block_size
            assert sequence.num_computed_tokens <= capacity, "committed past the block table"
            assert sequence.num_uncomputed >= 1, "a running sequence has no root"
        for sequence in self.waiting:
            assert not sequence.block_table, "a waiting sequence holds blocks"

    def _admit(
        self,
        sequence: Sequence,
        hashes: list[BlockHash],
        cached: list[int],
        budget: int,
        decoding: int,
    ) -> Scheduled | None:
        """Start a waiting sequence on top of what the cache holds; None if blocks are lacking."""
        self.pool.touch(cached)
        size = self.config.block_size
        sequence.block_table = list(cached)
        sequence.block_hashes = hashes[: len(cached)]
        sequence.num_computed_tokens = len(cached) * size
        item = self._fit(sequence, budget, decoding)
        if not self._reserve(item):
            self.pool.free(sequence.block_table)
            sequence.forget_kv()
            return None
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.status = SequenceStatus.RUNNING
        if sequence.scheduled is None:
            sequence.scheduled = time.monotonic()
        if sequence.num_generated == 0:
            sequence.num_cached_tokens = sequence.num_computed_tokens
            self.prefix_queries += sequence.num_prompt_tokens
            self.prefix_hits += sequence.num_cached_tokens
        return item

    def _full_block_hashes(self, sequence: Sequence) -> list[BlockHash]:
        """Of the blocks that may be taken from the cache; kept while it waits."""
        if self.config.prefix_caching and not sequence.to_compute:
            tokens = sequence.token_ids[: sequence.num_sharable]
            size = self.config.block_size
            sequence.to_compute = block_hashes(tokens, size, sequence.cache_root)
        return sequence.to_compute

    def _is_being_computed(self, hashes: list[BlockHash], num_cached: int) -> bool:
        """Whether a running sequence is about to compute the first block that is not cached.

        So the choices of one request, and prompts that begin alike and come together, compute
        their common beginning once: the others wait for it as long as they would compute it.
        """
        if num_cached == len(hashes):
            return False
        block_hash = hashes[num_cached]
        return any(
            len(other.block_hashes) <= num_cached < len(other.to_compute)
            and other.to_compute[num_cached] == block_hash
            for other in self.running
        )

    def _fit(self, sequence: Sequence, budget: int, decoding: int) -> Scheduled:
        """As many rows as the budget allows; a tree that does not fit shrinks to its root."""
        if sequence.num_uncomputed > budget:
            return Scheduled(sequence, budget, None)
        rows = budget - (sequence.num_uncomputed - 1)
        root = sequence.token_ids[-1]
        tree = sequence.draft or self.plan(sequence, decoding).fill(root)
        if tree.topology.num_rows > rows:
            tree = TreeTopology.root(0).fill(root)
        return Scheduled(sequence, sequence.num_uncomputed - 1, tree)

    def _reserve(self, item: Scheduled) -> bool:
        """Give the sequence blocks for all that this step may commit, if there are enough."""
        sequence = item.sequence
        tokens = sequence.num_computed_tokens + item.num_causal
        if item.tree is not None:
            tokens += 1 + max(item.tree.topology.depths)
        missing = -(-tokens // self.config.block_size) - len(sequence.block_table)
        if missing > 0:
            if not self.pool.can_allocate(missing):
                return False
            sequence.block_table += self.pool.allocate(missing)
        return True

    def _last_in_line(self) -> Sequence:
        """The running sequence of lowest priority that was admitted last."""
        return max(enumerate(self.running), key=lambda pair: (pair[1].order, pair[0]))[1]

    def _preempt(self, sequence: Sequence) -> None:
        self.num_preemptions += 1
        self.running.remove(sequence)
        self._release(sequence)
        # Before its equals: it has waited once already.
        index = next(
            (i for i, s in enumerate(self.waiting) if s.order >= sequence.order), len(self.waiting)
        )
        self.waiting.insert(index, sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pool.free(sequence.block_table)
        sequence.forget_kv()


def _without_drafts(tree: DraftTree) -> DraftTree:
    return TreeTopology.root(tree.topology.masks[0]).fill(tree.token_ids[0])
