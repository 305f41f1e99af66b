"""Payoff: drafting goes on where it pays, and rests where it has not."""

import pytest

from engine.speculation.payoff import LONGEST_PAUSE, SHORTEST_PAUSE, WINDOW, Payoff


def steps(payoff, count, sequences=4, drafts=8, tokens=8, seconds=2.0, plain=1.5):
    for _ in range(count):
        payoff.observe(sequences, drafts, tokens, seconds, plain)


def pause(payoff, sequences=4):
    """Steps without drafts until it drafts again."""
    count = 0
    while not payoff.pays(sequences):
        payoff.observe(sequences, 0, sequences, 1.0, 1.0)
        count += 1
    return count


def test_drafts_go_on_while_they_bring_more_than_they_take():
    payoff = Payoff()
    steps(payoff, 10 * WINDOW, tokens=6, seconds=2.0, plain=1.5)
    assert payoff.pays(4)


def test_a_window_of_loss_pauses_them():
    payoff = Payoff()
    steps(payoff, WINDOW - 1, tokens=5, seconds=2.0, plain=1.5)
    assert payoff.pays(4)
    steps(payoff, 1, tokens=5, seconds=2.0, plain=1.5)
    assert not payoff.pays(4)


def test_they_are_tried_again_later_and_later():
    payoff, pauses = Payoff(), []
    for _ in range(9):
        steps(payoff, WINDOW, tokens=4)
        pauses.append(pause(payoff))
    assert pauses[:3] == [SHORTEST_PAUSE, 2 * SHORTEST_PAUSE, 4 * SHORTEST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_a_window_of_gain_forgives_earlier_losses():
    payoff = Payoff()
    for _ in range(3):
        steps(payoff, WINDOW, tokens=4)
        pause(payoff)
    steps(payoff, WINDOW, tokens=8)
    steps(payoff, WINDOW, tokens=4)
    assert pause(payoff) == SHORTEST_PAUSE


def test_one_slow_step_does_not_decide():
    payoff = Payoff()
    steps(payoff, 1, seconds=2.2, plain=1.5, tokens=4)
    steps(payoff, WINDOW - 1)
    assert payoff.pays(4)


@pytest.mark.parametrize(("sequences", "pays"), [(3, False), (4, False), (1, True), (5, True)])
def test_loads_are_judged_apart(sequences, pays):
    payoff = Payoff()
    steps(payoff, WINDOW, sequences=4, tokens=4)
    assert payoff.pays(sequences) == pays


def test_steps_without_drafts_say_nothing():
    payoff = Payoff()
    steps(payoff, 10 * WINDOW, drafts=0, tokens=4, seconds=2.0, plain=1.0)
    assert payoff.pays(4)
