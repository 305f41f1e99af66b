"""What a step takes besides its forward, as the planner is told."""

from __future__ import annotations

import random

import pytest

from engine.speculation.overhead import TOLERANCE, WINDOW, Overhead


def after(overhead: Overhead, *seconds: float) -> float:
    """What it says after a window of such steps, in turns."""
    for step in range(WINDOW):
        overhead.observe(seconds[step % len(seconds)])
    return overhead.seconds


def test_nothing_is_known_before_a_window_is_full() -> None:
    overhead = Overhead()
    for _ in range(WINDOW - 1):
        overhead.observe(1e-3)
    assert overhead.seconds == 0.0


def test_it_is_what_most_steps_take() -> None:
    assert after(Overhead(), 3e-4, 3e-4, 5.0) == pytest.approx(3e-4, rel=TOLERANCE / 2)


def test_it_follows_what_changes_much_and_nothing_else() -> None:
    overhead = Overhead()
    first = after(overhead, 1e-3)
    assert after(overhead, 1.05e-3) == first
    assert after(overhead, 2e-3) == pytest.approx(2e-3, rel=TOLERANCE / 2)


def test_there_are_few_values_however_it_varies() -> None:
    overhead, rng = Overhead(), random.Random(0)
    values = {after(overhead, rng.uniform(1e-4, 1e-3)) for _ in range(1000)}
    assert len(values) < 20


def test_steps_that_took_no_time_are_no_error() -> None:
    assert after(Overhead(), 0.0) < 1e-3
