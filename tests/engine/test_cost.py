"""The measured cost of a forward, as a curve."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speculation import cost
from engine.speculation.cost import REPEATS, ROWS, StepCostModel, measure

LEVEL, LEAST = 0.25, 0.0625
some = settings(max_examples=50, deadline=None)
curves = st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=len(ROWS)).map(
    lambda seconds: StepCostModel(ROWS[: len(seconds)], tuple(sorted(seconds)))
)


class Machine:
    """A clock that only forwards move, by what the next of `seconds` for their rows says."""

    def __init__(self, seconds: dict[int, list[float]]) -> None:
        self.now, self.seconds = 0.0, {rows: iter(times) for rows, times in seconds.items()}
        self.ran: list[int] = []

    def forward(self, rows: int) -> None:
        self.ran.append(rows)
        self.now += next(self.seconds[rows])

    def rank(self, _: int) -> None:
        self.now += LEVEL

    def rank_few(self, _: int) -> None:
        self.now += LEAST

    def measured(self, monkeypatch: pytest.MonkeyPatch, max_rows: int) -> StepCostModel:
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(cost, "time", clock)
        return measure(self.forward, self.rank, self.rank_few, max_rows)


def machine(*seconds: float) -> Machine:
    """Takes `seconds[i]` for `ROWS[i]` rows, always."""
    return Machine({r: [s] * 99 for r, s in zip(ROWS, seconds, strict=False)})


@some
@given(curves)
def test_the_curve_goes_through_its_points(curve: StepCostModel) -> None:
    for rows, seconds in zip(curve.rows, curve.seconds, strict=True):
        assert curve(rows) == pytest.approx(seconds)


@some
@given(curves)
def test_more_rows_never_cost_less(curve: StepCostModel) -> None:
    costs = [curve(rows) for rows in range(1, 400)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(costs))
    assert costs[0] > 0


@some
@given(curves)
def test_between_two_points_the_cost_is_between_theirs(curve: StepCostModel) -> None:
    points = itertools.pairwise(zip(curve.rows, curve.seconds, strict=True))
    for (low, cheap), (high, dear) in points:
        middle = curve((low + high) // 2)
        share = ((low + high) // 2 - low) / (high - low)
        assert middle == pytest.approx(cheap + share * (dear - cheap))


def test_beyond_the_last_point_the_cost_goes_on_as_it_went() -> None:
    curve = StepCostModel((1, 4, 8), (1.0, 2.0, 4.0))
    assert curve(12) == 6.0
    assert curve(108) == 54.0


def test_a_measured_curve_has_the_seconds_that_forwards_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    curve = machine(1.0, 2.0, 3.0, 5.0).measured(monkeypatch, 12)
    assert curve == StepCostModel((1, 4, 8, 12), (1.0, 2.0, 3.0, 5.0), LEVEL, LEAST)


@pytest.mark.parametrize(("share", "level"), [(1.0, 0.25), (0.5, 0.15625), (0.0, 0.0625)])
def test_a_level_costs_by_the_part_of_the_vocabulary_it_is_ranked_among(
    share: float, level: float
) -> None:
    curve = StepCostModel((1, 4), (1.0, 2.0), LEVEL, LEAST)
    assert curve.drafting_among(share).level == level
    assert curve.drafting_among(share)(4) == 2.0


def test_the_first_forward_is_not_counted_and_the_fastest_of_the_others_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = [9.0] * REPEATS
    curve = Machine({1: [0.1, *slow[1:], 2.0], 4: [0.1, 3.0, *slow[1:]]}).measured(monkeypatch, 4)
    assert curve.seconds == pytest.approx((2.0, 3.0))


def test_a_measurement_that_says_more_rows_cost_less_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    curve = machine(2.0, 1.0, 3.0, 2.5).measured(monkeypatch, 12)
    assert curve.seconds == (2.0, 2.0, 3.0, 3.0)


@pytest.mark.parametrize("most", [4, 11, 64, 10_000])
def test_no_forward_has_more_rows_than_it_may(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = machine(*[1.0] * len(ROWS))
    curve = timed.measured(monkeypatch, most)
    assert max(timed.ran) == max(curve.rows) == max(r for r in ROWS if r <= most)
