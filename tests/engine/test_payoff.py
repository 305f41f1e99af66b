"""Payoff: drafting goes on where it pays, and rests where it has not."""

from __future__ import annotations

import pytest

from engine.speculation.payoff import (
    DOUBTS,
    LATER_DOUBTS,
    LONGEST_PAUSE,
    PROBE,
    SHORTEST_BELIEF,
    SHORTEST_PAUSE,
    SHORTEST_WINDOW,
    WINDOW,
    Payoff,
    Step,
)

SEQUENCES = 4
STEPS = max(SHORTEST_WINDOW, WINDOW // SEQUENCES)
"""Of a window."""


def drafted(payoff: Payoff, count: int, seconds: float = 2.0, plain: float = 3.0) -> None:
    """Steps that the model has 2.0 seconds for, and `plain` for their tokens without drafts."""
    for _ in range(count):
        payoff.observe(Step(SEQUENCES, 8, seconds, 2.0, plain))


def rest(payoff: Payoff, seconds: float = 1.0) -> int:
    """Steps without drafts until it drafts again, a second each by the model."""
    count = 0
    while not payoff.pays(SEQUENCES):
        payoff.observe(Step(SEQUENCES, 0, seconds, 1.0, 1.0))
        count += 1
    return count


def probed(seconds: float = 1.0) -> Payoff:
    """One that knows what steps without drafts take, and has not judged."""
    payoff = Payoff()
    drafted(payoff, STEPS)
    assert rest(payoff, seconds) == PROBE
    return payoff


def lost(payoff: Payoff, doubts: int = DOUBTS) -> int:
    """Steps that it rests for after a window of loss that was seen as often before."""
    for _ in range(doubts):
        drafted(payoff, STEPS, seconds=9.0)
        assert rest(payoff) == PROBE
    drafted(payoff, STEPS, seconds=9.0)
    return rest(payoff)


def test_the_first_verdict_waits_for_steps_without_drafts() -> None:
    payoff = Payoff()
    drafted(payoff, STEPS - 1, seconds=9.0)
    assert payoff.pays(SEQUENCES)
    drafted(payoff, 1)
    assert not payoff.pays(SEQUENCES)
    assert rest(payoff) == PROBE


def test_drafts_go_on_while_they_bring_more_than_they_take() -> None:
    payoff = probed()
    for _ in range(2 * SHORTEST_BELIEF):
        drafted(payoff, 1, seconds=2.8)
        assert rest(payoff) in (0, PROBE)


def test_windows_of_loss_one_after_the_other_pause_them() -> None:
    payoff = probed()
    for pause in (*[PROBE] * DOUBTS, SHORTEST_PAUSE):
        drafted(payoff, STEPS - 1, seconds=9.0)
        assert payoff.pays(SEQUENCES)
        drafted(payoff, 1, seconds=9.0)
        assert rest(payoff) == pause


def test_a_loss_that_is_not_seen_again_is_forgotten() -> None:
    payoff = probed()
    for _ in range(3):
        while payoff.pays(SEQUENCES):
            drafted(payoff, 1, seconds=9.0)
        assert rest(payoff) == PROBE
        drafted(payoff, STEPS)
        assert payoff.pays(SEQUENCES)


def test_prompts_that_slow_some_steps_with_drafts_count_for_those_alone() -> None:
    payoff = probed()
    for _ in range(4 * STEPS):
        payoff.observe(Step(SEQUENCES, 8, 6.0, 4.0, 5.0, prompts=True))
        drafted(payoff, 2)
        assert rest(payoff) <= PROBE


def test_after_a_loss_only_what_comes_then_counts() -> None:
    payoff = Payoff()
    drafted(payoff, STEPS)
    assert rest(payoff, seconds=0.2) == PROBE
    drafted(payoff, STEPS, seconds=2.5)
    assert rest(payoff) == PROBE
    drafted(payoff, STEPS, seconds=2.5)
    assert payoff.pays(SEQUENCES)


def test_steps_without_drafts_that_are_slower_than_the_model_says_count_as_slow() -> None:
    slow, quick = probed(seconds=2.0), probed(seconds=0.5)
    for payoff in (slow, quick):
        drafted(payoff, STEPS, seconds=2.5)
    assert slow.pays(SEQUENCES)
    assert not quick.pays(SEQUENCES)


def test_they_are_tried_again_later_and_later() -> None:
    payoff = probed()
    pauses = [lost(payoff), *(lost(payoff, LATER_DOUBTS) for _ in range(7))]
    assert pauses[:3] == [SHORTEST_PAUSE, 2 * SHORTEST_PAUSE, 4 * SHORTEST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_a_window_of_gain_forgives_earlier_losses() -> None:
    payoff = probed()
    for doubts in (DOUBTS, LATER_DOUBTS, LATER_DOUBTS):
        lost(payoff, doubts)
    drafted(payoff, STEPS)
    assert payoff.pays(SEQUENCES)
    while payoff.pays(SEQUENCES):
        drafted(payoff, 1, seconds=9.0)
    assert rest(payoff) == PROBE
    for pause in (*[PROBE] * (DOUBTS - 1), SHORTEST_PAUSE):
        drafted(payoff, STEPS, seconds=9.0)
        assert rest(payoff) == pause


@pytest.mark.parametrize("slow", [20.0, 2000.0])
def test_some_slow_steps_do_not_decide(slow: float) -> None:
    payoff = probed()
    drafted(payoff, STEPS // 4, seconds=slow)
    drafted(payoff, STEPS)
    assert payoff.pays(SEQUENCES)


def test_what_steps_without_drafts_take_is_asked_again_ever_later() -> None:
    payoff, asked = probed(), []
    for step in range(8 * SHORTEST_BELIEF):
        drafted(payoff, 1)
        if rest(payoff) == PROBE:
            asked.append(step + 1)
    gaps = [b - a for a, b in zip([0, *asked], asked, strict=False)]
    assert gaps[:2] == [2 * SHORTEST_BELIEF, 4 * SHORTEST_BELIEF]


def test_a_rest_with_drafts_of_other_sources_ends_too() -> None:
    payoff = Payoff()
    drafted(payoff, STEPS)
    drafted(payoff, PROBE)
    assert payoff.pays(SEQUENCES)


@pytest.mark.parametrize(("sequences", "pays"), [(3, False), (4, False), (1, True), (5, True)])
def test_loads_are_judged_apart(sequences: int, pays: bool) -> None:
    payoff = probed()
    drafted(payoff, STEPS, seconds=9.0)
    assert payoff.pays(sequences) == pays


def test_a_load_that_comes_after_a_loss_at_another_is_doubted_less() -> None:
    payoff = probed()
    lost(payoff)
    for looks in range(1 + LATER_DOUBTS, -1, -1):
        for _ in range(SHORTEST_WINDOW):
            assert payoff.pays(64)
            payoff.observe(Step(64, 8, 9.0, 2.0, 3.0))
        for _ in range(PROBE if looks else SHORTEST_PAUSE):
            assert not payoff.pays(64)
            payoff.observe(Step(64, 0, 1.0, 1.0, 1.0))
    assert payoff.pays(64)


def test_many_sequences_are_judged_after_a_few_steps() -> None:
    payoff = Payoff()
    for _ in range(SHORTEST_WINDOW):
        assert payoff.pays(64)
        payoff.observe(Step(64, 8, 9.0, 2.0, 3.0))
    assert not payoff.pays(64)


def test_single_steps_between_drafts_do_not_tell_what_plain_decoding_takes() -> None:
    payoff = Payoff()
    for _ in range(STEPS):
        drafted(payoff, 1)
        payoff.observe(Step(SEQUENCES, 0, 9.0, 1.0, 1.0))
    assert 0 < rest(payoff) <= PROBE
    drafted(payoff, STEPS, seconds=9.0)
    assert not payoff.pays(SEQUENCES)


def test_single_steps_between_drafts_do_not_put_off_asking_what_plain_decoding_takes() -> None:
    payoff, asked = probed(), 0
    for _ in range(4 * SHORTEST_BELIEF):
        drafted(payoff, 1)
        asked += rest(payoff) > 0
        payoff.observe(Step(SEQUENCES, 0, 1.0, 1.0, 1.0))
    assert asked


def test_steps_without_drafts_say_nothing_of_drafts() -> None:
    payoff = Payoff()
    for _ in range(10 * WINDOW):
        payoff.observe(Step(SEQUENCES, 0, 9.0, 1.0, 1.0))
    assert payoff.pays(SEQUENCES)


def test_the_time_of_plain_decoding_is_that_of_the_step_by_the_model_and_by_what_was_seen() -> None:
    payoff, step = Payoff(), Step(SEQUENCES, 8, seconds=6.0, cost=2.0, plain=3.0)
    assert payoff.plain_seconds(step) == 6.0 * 3.0 / 2.0
    payoff.observe(step)
    for _ in range(PROBE):
        payoff.observe(Step(SEQUENCES, 0, seconds=1.5, cost=1.0, plain=1.0))
    assert payoff.plain_seconds(step) == pytest.approx(1.5 * 3.0)
    assert payoff.plain_seconds(Step(SEQUENCES, 0, 7.0, 1.0, 1.0)) == 7.0


def test_while_a_loss_is_looked_at_anew_plain_decoding_is_judged_by_what_was_seen_before() -> None:
    payoff, step = probed(seconds=0.5), Step(SEQUENCES, 8, seconds=2.0, cost=2.0, plain=3.0)
    drafted(payoff, STEPS)
    assert payoff.plain_seconds(step) == pytest.approx(0.5 * 3.0)
    assert rest(payoff) == PROBE
    assert payoff.plain_seconds(step) == pytest.approx(0.5 * 3.0)
