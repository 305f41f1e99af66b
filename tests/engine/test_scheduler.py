"""Who runs in the next step, with how many rows, on which blocks; no model is needed for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.cache.block_pool import BlockPool
from engine.config import EngineConfig
from engine.errors import EngineOverloaded
from engine.request import Request
from engine.scheduler import Scheduled, Scheduler
from engine.sequence import Sequence, SequenceStatus
from engine.speculation.tree import DraftTree, TreeTopology

BLOCK = 4


def make(num_blocks: int = 64, first: TreeTopology | None = None, **config: Any) -> Scheduler:
    """A scheduler; `first` is the tree of sequences that nothing is drafted for."""
    topology = first or TreeTopology.root(0)
    settings = EngineConfig("none", block_size=BLOCK, **config)
    return Scheduler(settings, BlockPool(num_blocks, BLOCK), lambda sequence, decoding: topology)


def sequence(name: str, tokens: int | list[int], priority: int = 0) -> Sequence:
    """A request of the given tokens, or of so many that no other has."""
    own = [10_000 * ord(name[0]) + i for i in range(tokens)] if isinstance(tokens, int) else tokens
    return Sequence(Request(name, own, priority=priority), seed=0, adapter=None, max_tokens=99)


def add(scheduler: Scheduler, *sequences: Sequence) -> None:
    for one in sequences:
        scheduler.add(one)


def chain(sequence: Sequence, length: int) -> DraftTree:
    """A draft of `length` tokens behind the last one, masks of its own size at every node."""
    topology = TreeTopology.chain(length)
    return topology.fill(sequence.token_ids[-1], [[1000 + depth] for depth in range(length)])


def commit(scheduler: Scheduler, scheduled: list[Scheduled], accepted: int = 0) -> None:
    """The engine's part of a step: every chosen token is new, `accepted` drafts were right."""
    for item in scheduled:
        if item.tree is None:
            scheduler.committed(item.sequence, item.num_causal)
            continue
        path = min(accepted, max(item.tree.topology.depths))
        item.sequence.token_ids += [2000 + i for i in range(path + 1)]
        scheduler.committed(item.sequence, item.num_causal + 1 + path)
        item.sequence.draft = None


def names(items: list[Scheduled] | list[Sequence]) -> str:
    """Their one-letter request ids, in order."""
    found = [item.sequence if isinstance(item, Scheduled) else item for item in items]
    return "".join(one.request.request_id for one in found)


def rows(items: list[Scheduled]) -> list[tuple[int, bool]]:
    """Causal rows of each, and whether it reaches its last token."""
    return [(item.num_causal, item.tree is not None) for item in items]


def test_requests_are_admitted_in_order_of_arrival() -> None:
    scheduler = make()
    add(scheduler, *(sequence(name, 3) for name in "abc"))
    assert names(scheduler.schedule()) == "abc"
    assert not scheduler.waiting


def test_a_smaller_priority_goes_first_and_equals_keep_their_order() -> None:
    scheduler = make()
    add(
        scheduler,
        *(sequence(name, 3, p) for name, p in zip("abcde", (1, 0, 1, -1, 0), strict=True)),
    )
    assert names(scheduler.schedule()) == "dbeac"


def test_no_more_sequences_run_than_the_configuration_says() -> None:
    scheduler = make(max_num_seqs=2)
    first, *others = (sequence(name, 3) for name in "abc")
    add(scheduler, first, *others)
    commit(scheduler, scheduler.schedule())
    assert names(scheduler.schedule()) == "ab"
    scheduler.finish(first)
    assert names(scheduler.schedule()) == "bc"


def test_who_waits_behind_a_sequence_that_does_not_fit_is_not_let_past_it() -> None:
    scheduler = make(num_blocks=4)
    add(scheduler, sequence("a", 8), sequence("b", 12), sequence("c", 1))
    assert names(scheduler.schedule()) == "a"
    assert names(scheduler.waiting) == "bc"


def test_a_full_queue_refuses_and_keeps_what_it_had() -> None:
    scheduler = make(max_waiting=2)
    add(scheduler, sequence("a", 3), sequence("b", 3))
    with pytest.raises(EngineOverloaded, match="2 requests are waiting already") as refused:
        scheduler.add(sequence("c", 3))
    assert refused.value.retry_after > 0
    assert names(scheduler.waiting) == "ab"
    scheduler.schedule()
    scheduler.add(sequence("c", 3))


def test_a_long_prompt_is_computed_in_chunks_and_chosen_from_once() -> None:
    scheduler = make(max_num_batched_tokens=8)
    long = sequence("a", 20)
    scheduler.add(long)
    steps = []
    while long.num_generated == 0:
        steps.append(scheduler.schedule())
        commit(scheduler, steps[-1])
    assert [rows(step) for step in steps] == [[(8, False)], [(8, False)], [(3, True)]]
    assert long.num_uncomputed == 1


def test_the_step_ends_where_the_budget_does() -> None:
    scheduler = make(max_num_batched_tokens=10)
    add(scheduler, *(sequence(name, 6) for name in "abc"))
    steps = []
    for _ in range(3):
        steps.append(scheduler.schedule())
        commit(scheduler, steps[-1])
    assert [names(step) for step in steps] == ["ab", "abc", "abc"]
    assert [rows(step) for step in steps] == [
        [(5, True), (4, False)],
        [(0, True), (1, True), (5, True)],
        [(0, True)] * 3,
    ]


def test_a_prompt_of_exactly_the_budget_still_reaches_its_last_token() -> None:
    scheduler = make(max_num_batched_tokens=8, first=TreeTopology.root(3))
    scheduler.add(sequence("a", 8))
    [item] = scheduler.schedule()
    assert (item.num_causal, item.num_rows) == (7, 8)


def test_running_sequences_come_before_new_ones() -> None:
    scheduler = make(max_num_batched_tokens=4)
    running = sequence("a", 3)
    scheduler.add(running)
    commit(scheduler, scheduler.schedule())
    scheduler.add(sequence("b", 9, priority=-1))
    step = scheduler.schedule()
    assert names(step) == "ab"
    assert rows(step) == [(0, True), (3, False)]


@pytest.mark.parametrize(("budget", "second"), [(18, 9), (17, 1), (10, 1)])
def test_a_draft_is_verified_whole_or_not_at_all(budget: int, second: int) -> None:
    """A tree that does not fit the rows left shrinks to its root, which needs just one."""
    scheduler = make(max_num_batched_tokens=budget)
    add(scheduler, sequence("a", 2), sequence("b", 2))
    commit(scheduler, scheduler.schedule())
    for one in scheduler.running:
        one.draft = chain(one, 2)
    step = scheduler.schedule()
    assert [item.num_rows for item in step] == [9, second]
    assert step[0].tree is step[0].sequence.draft
    tree = step[1].tree
    assert tree is not None
    assert tree.token_ids[0] == step[1].sequence.token_ids[-1]


def test_the_first_tree_is_asked_for_with_the_number_of_decoding_sequences() -> None:
    asked: list[tuple[str, int]] = []

    def plan(sequence: Sequence, decoding: int) -> TreeTopology:
        asked.append((sequence.request.request_id, decoding))
        return TreeTopology.root(1)

    config = EngineConfig("none", block_size=BLOCK)
    scheduler = Scheduler(config, BlockPool(16, BLOCK), plan)
    add(scheduler, sequence("a", 3), sequence("b", 3))
    step = scheduler.schedule()
    assert [item.num_rows for item in step] == [4, 4]
    commit(scheduler, step)
    asked.clear()
    scheduler.add(sequence("c", 3))
    scheduler.schedule()
    assert asked == [("a", 2), ("b", 2), ("c", 3)]


def test_blocks_are_reserved_for_the_deepest_path_of_the_tree() -> None:
    scheduler = make()
    one = sequence("a", 4)
    scheduler.add(one)
    commit(scheduler, scheduler.schedule())
    assert len(one.block_table) == 1
    one.draft = chain(one, 3)
    commit(scheduler, scheduler.schedule(), accepted=3)
    assert (one.num_computed_tokens, len(one.block_table)) == (8, 2)
    one.draft = chain(one, 4)
    scheduler.schedule()
    assert len(one.block_table) == 4


def crowded(*priorities: int) -> Scheduler:
    """Sequences that fill the pool but for nothing: the next block any of them needs is missing."""
    scheduler = make(num_blocks=len(priorities), prefix_caching=False)
    for name, priority in zip("abcdef", priorities, strict=False):
        scheduler.add(sequence(name, BLOCK, priority))
    commit(scheduler, scheduler.schedule())
    assert scheduler.pool.num_free == 0
    return scheduler


def test_the_sequence_that_came_last_gives_way() -> None:
    scheduler = crowded(0, 0, 0)
    step = scheduler.schedule()
    assert names(step) == "a"
    assert names(scheduler.running) == "a"
    # Both gave their blocks up, the later one first; they wait in the order they came in.
    assert names(scheduler.waiting) == "bc"
    assert scheduler.num_preemptions == 2
    scheduler.check_integrity()


def test_a_lower_priority_gives_way_before_a_later_arrival() -> None:
    scheduler = make(num_blocks=3, prefix_caching=False)
    add(scheduler, sequence("a", BLOCK - 1, 5), sequence("b", BLOCK - 1, 5))
    commit(scheduler, scheduler.schedule())
    scheduler.add(sequence("c", 1, 0))
    commit(scheduler, scheduler.schedule())
    assert names(scheduler.running) == "abc"
    assert names(scheduler.schedule()) == "ac"
    assert names(scheduler.waiting) == "b"
    scheduler.check_integrity()


def test_a_sequence_that_has_been_scheduled_already_can_still_give_way() -> None:
    """Its rows leave the step too: without blocks there is nowhere to commit them."""
    scheduler = make(num_blocks=3, prefix_caching=False)
    add(scheduler, sequence("a", 1, priority=1))
    commit(scheduler, scheduler.schedule())
    scheduler.add(sequence("b", 2 * BLOCK, priority=0))
    commit(scheduler, scheduler.schedule())
    step = scheduler.schedule()
    assert names(step) == "b"
    assert names(scheduler.waiting) == "a"
    scheduler.check_integrity()


def test_who_gave_way_waits_before_its_equals_and_behind_the_more_urgent() -> None:
    scheduler = crowded(0, 0)
    add(scheduler, sequence("x", 1, 1), sequence("y", 1, 0), sequence("z", 1, -1))
    scheduler.schedule()
    assert names(scheduler.waiting) == "zbyx"


def test_who_gave_way_is_computed_again_with_all_its_tokens() -> None:
    scheduler = crowded(0, 0)
    first, victim = scheduler.running
    victim.draft = chain(victim, 2)
    scheduler.schedule()
    assert victim.status is SequenceStatus.WAITING
    assert (victim.num_computed_tokens, victim.block_table, victim.draft) == (0, [], None)
    scheduler.finish(first)
    [item] = scheduler.schedule()
    assert item.sequence is victim
    assert rows([item]) == [(BLOCK, True)]
    assert item.tree is not None
    assert item.tree.token_ids[0] == victim.token_ids[-1]
    assert victim.num_generated == 1


def test_who_gave_way_finds_its_blocks_again_if_nobody_took_them() -> None:
    scheduler = make(num_blocks=4)
    first, victim = sequence("a", 2 * BLOCK), sequence("b", 2 * BLOCK)
    add(scheduler, first, victim)
    commit(scheduler, scheduler.schedule())
    assert names(scheduler.schedule()) == "a"
    scheduler.finish(first)
    [item] = scheduler.schedule()
    assert item.sequence is victim
    assert item.num_causal < 2 * BLOCK
    # What it finds of its own is no hit of the prompt: the prompt was counted when it came.
    assert (victim.num_cached_tokens, scheduler.prefix_hits) == (0, 0)


@pytest.mark.parametrize("state", ["waiting", "prefilling", "decoding"])
def test_whoever_leaves_in_any_state_leaves_no_block_behind(state: str) -> None:
    scheduler = make(num_blocks=8, max_num_batched_tokens=12, prefix_caching=False)
    one = sequence("a", 20)
    scheduler.add(one)
    if state != "waiting":
        commit(scheduler, scheduler.schedule())
        assert one.num_uncomputed > 1
    if state == "decoding":
        commit(scheduler, scheduler.schedule())
        assert one.num_generated == 1
    scheduler.finish(one)
    assert one.status is SequenceStatus.FINISHED
    assert scheduler.pool.num_free == 8
    assert not scheduler.has_work
    assert scheduler.schedule() == []
    scheduler.check_integrity()


def test_who_gave_way_can_leave_while_it_waits_again() -> None:
    scheduler = crowded(0, 0)
    first, victim = scheduler.running
    scheduler.schedule()
    scheduler.finish(victim)
    assert not scheduler.waiting
    assert len(first.block_table) + scheduler.pool.num_free == 2
    scheduler.check_integrity()


def test_an_equal_beginning_is_found_and_counted() -> None:
    scheduler = make()
    common = list(range(2 * BLOCK))
    scheduler.add(sequence("a", [*common, 50]))
    commit(scheduler, scheduler.schedule())
    second = sequence("b", [*common, 60, 61])
    scheduler.add(second)
    item = scheduler.schedule()[1]
    assert (item.num_causal, second.num_cached_tokens) == (1, 2 * BLOCK)
    assert second.block_table[:2] == scheduler.running[0].block_table[:2]
    assert scheduler.prefix_queries == 9 + 10
    assert scheduler.prefix_hits == 8


def test_a_prompt_found_whole_still_computes_its_last_token() -> None:
    scheduler = make()
    prompt = list(range(2 * BLOCK))
    first, second = sequence("a", prompt), sequence("b", prompt)
    scheduler.add(first)
    commit(scheduler, scheduler.schedule())
    scheduler.finish(first)
    scheduler.add(second)
    [item] = scheduler.schedule()
    assert second.num_cached_tokens == BLOCK
    assert rows([item]) == [(BLOCK - 1, True)]


def test_generated_tokens_are_found_by_the_next_turn() -> None:
    scheduler = make()
    first = sequence("a", 3)
    scheduler.add(first)
    for _ in range(6):
        commit(scheduler, scheduler.schedule())
    scheduler.finish(first)
    second = sequence("b", [*first.token_ids, 7, 8])
    scheduler.add(second)
    scheduler.schedule()
    assert second.num_cached_tokens == 2 * BLOCK


def test_nothing_is_found_where_prefix_caching_is_off() -> None:
    scheduler = make(prefix_caching=False)
    for name in "ab":
        scheduler.add(sequence(name, list(range(12))))
        commit(scheduler, scheduler.schedule())
    assert scheduler.prefix_hits == 0
    assert not set(scheduler.running[0].block_table) & set(scheduler.running[1].block_table)


def test_a_refused_admission_lets_go_of_the_prefix_it_had_found() -> None:
    scheduler = make(num_blocks=4)
    common = list(range(BLOCK))
    scheduler.add(sequence("a", [*common, 50]))
    commit(scheduler, scheduler.schedule())
    scheduler.add(sequence("b", [*common, *range(100, 100 + 3 * BLOCK)]))
    assert names(scheduler.schedule()) == "a"
    [waiting] = scheduler.waiting
    assert (waiting.block_table, waiting.num_computed_tokens) == ([], 0)
    assert scheduler.prefix_queries == 5
    scheduler.check_integrity()


NUM_BLOCKS, BUDGET, MAX_SEQS = 9, 11, 3


class SchedulerMachine(RuleBasedStateMachine):
    """Requests come, run and go in any order, in a pool too small for all of them.

    Prompts are made of two tokens, so that beginnings are shared. A request is no longer than
    the pool, as the engine sees to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = make(
            NUM_BLOCKS, max_num_batched_tokens=BUDGET, max_num_seqs=MAX_SEQS, max_waiting=4
        )
        self.count = 0

    @property
    def alive(self) -> list[Sequence]:
        return [*self.scheduler.running, *self.scheduler.waiting]

    @rule(prompt=st.lists(st.integers(0, 1), min_size=1, max_size=20), priority=st.integers(0, 2))
    def arrive(self, prompt: list[int], priority: int) -> None:
        self.count += 1
        full = len(self.scheduler.waiting) >= 4
        try:
            self.scheduler.add(sequence(str(self.count), prompt, priority))
            assert not full
        except EngineOverloaded:
            assert full

    @precondition(lambda self: self.alive)
    @rule(accepted=st.integers(0, 3), drafted=st.lists(st.integers(0, 3), min_size=MAX_SEQS))
    def step(self, accepted: int, drafted: list[int]) -> None:
        scheduled = self.scheduler.schedule()
        assert scheduled, "there is work, but nothing is scheduled"
        assert sum(item.num_rows for item in scheduled) <= BUDGET
        assert len({id(item.sequence) for item in scheduled}) == len(scheduled) <= MAX_SEQS
        for item in scheduled:
            assert item.sequence in self.scheduler.running
            past = item.sequence.num_computed_tokens + item.num_causal
            deepest = 1 + max(item.tree.topology.depths) if item.tree else 0
            assert past + deepest <= len(item.sequence.block_table) * BLOCK
            last = len(item.sequence.token_ids) - 1
            assert past <= last, "a root is no causal row"
            if item.tree is not None:
                assert (past, item.tree.token_ids[0]) == (last, item.sequence.token_ids[-1])
        commit(self.scheduler, scheduled, accepted)
        for one in list(self.scheduler.running):
            if len(one.token_ids) >= (NUM_BLOCKS - 1) * BLOCK:
                self.scheduler.finish(one)
        for item, size in zip(scheduled, drafted, strict=False):
            if item.tree is not None and item.sequence.is_running and size:
                item.sequence.draft = chain(item.sequence, size)

    @precondition(lambda self: self.alive)
    @rule(index=st.integers(0, 100))
    def leave(self, index: int) -> None:
        self.scheduler.finish(self.alive[index % len(self.alive)])

    @invariant()
    def accounts_agree(self) -> None:
        self.scheduler.check_integrity()
        orders = [one.order for one in self.scheduler.waiting]
        assert orders == sorted(orders)
        held = {block for one in self.scheduler.running for block in one.block_table}
        assert self.scheduler.pool.num_free == NUM_BLOCKS - len(held)
        assert self.scheduler.has_work == bool(self.alive)


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_equal_prompts_that_come_together_are_computed_once() -> None:
    scheduler = make()
    prompt = list(range(2 * BLOCK + 2))
    choices = [sequence(name, prompt) for name in "abc"]
    other = sequence("d", 5)
    add(scheduler, *choices, other)
    first = scheduler.schedule()
    assert names(first) == "ad"  # who shares nothing is not held up
    commit(scheduler, first)
    second = scheduler.schedule()
    assert names(second) == "adbc"
    assert [item.num_causal for item in second[2:]] == [1, 1]
    assert [one.num_cached_tokens for one in choices] == [0, 8, 8]
    scheduler.check_integrity()


def test_a_long_common_beginning_is_waited_for_no_further_than_it_goes() -> None:
    scheduler = make(max_num_batched_tokens=2 * BLOCK)
    common = list(range(3 * BLOCK))
    first = sequence("a", [*common, *range(50, 70)])
    second = sequence("b", [*common, *range(90, 110)])
    add(scheduler, first, second)
    for ran in ("a", "a", "a", "a"):
        items = scheduler.schedule()
        assert names(items) == ran
        commit(scheduler, items)
    assert names(scheduler.schedule()) == "ab"
    assert second.num_cached_tokens == len(common)


def test_who_waits_for_another_goes_on_when_that_leaves() -> None:
    scheduler = make(max_num_batched_tokens=BLOCK)
    first, second = sequence("a", list(range(12))), sequence("b", list(range(12)))
    add(scheduler, first, second)
    scheduler.schedule()
    scheduler.finish(first)
    assert names(scheduler.schedule()) == "b"


def test_nothing_is_shared_between_salts() -> None:
    scheduler = make()
    prompt = list(range(2 * BLOCK + 1))
    for name, salt in (("a", ""), ("b", "x"), ("c", "y"), ("d", "x")):
        request = Request(name, prompt, cache_salt=salt)
        scheduler.add(Sequence(request, seed=0, adapter=None, max_tokens=99))
        commit(scheduler, scheduler.schedule())
    assert [one.num_cached_tokens for one in scheduler.running] == [0, 0, 0, 8]
