"""The measured cost of a forward, as a curve."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speculation import cost
from engine.speculation.cost import REPEATS, ROWS, Load, StepCostModel, measure

LEVEL, LEAST = 0.25, 0.0625
some = settings(max_examples=50, deadline=None)
curves = st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=len(ROWS)).map(
    lambda seconds: StepCostModel(ROWS[: len(seconds)], tuple(sorted(seconds)))
)


class Machine:
    """A clock that only work moves: forwards by `seconds` of their rows, and by their columns.

    Every round of a size takes the next of its seconds.
    """

    def __init__(
        self, seconds: dict[int, list[float]], column: float = 0.0, row_column: float = 0.0
    ) -> None:
        self.now, self.seconds = 0.0, {r: itertools.cycle(times) for r, times in seconds.items()}
        self.column, self.row_column = column, row_column
        self.ran: list[int] = []

    def forward(self, lengths: Sequence[int], past: int) -> None:
        rows = sum(lengths)
        self.ran.append(rows)
        self.now += next(self.seconds[rows])
        self.now += past * (self.column * len(lengths) + self.row_column * rows)

    def rank(self, _: int) -> None:
        self.now += LEVEL

    def rank_few(self, _: int) -> None:
        self.now += LEAST

    def measured(
        self, monkeypatch: pytest.MonkeyPatch, max_rows: int, contexts: tuple[int, int] = (0, 0)
    ) -> StepCostModel:
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(cost, "time", clock)
        return measure(self.forward, self.rank, self.rank_few, max_rows, 64, contexts)


def machine(*seconds: float) -> Machine:
    """Takes `seconds[i]` for `ROWS[i]` rows, always."""
    return Machine({rows: [s] for rows, s in zip(ROWS, seconds, strict=False)})


@some
@given(curves)
def test_the_curve_goes_through_its_points(curve: StepCostModel) -> None:
    for rows, seconds in zip(curve.rows, curve.seconds, strict=True):
        assert curve.of_rows(rows) == pytest.approx(seconds)


@some
@given(curves)
def test_more_rows_never_cost_less(curve: StepCostModel) -> None:
    costs = [curve.of_rows(rows) for rows in range(1, 400)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(costs))
    assert costs[0] > 0


@some
@given(curves)
def test_between_two_points_the_cost_is_between_theirs(curve: StepCostModel) -> None:
    points = itertools.pairwise(zip(curve.rows, curve.seconds, strict=True))
    for (low, cheap), (high, dear) in points:
        middle = curve.of_rows((low + high) // 2)
        share = ((low + high) // 2 - low) / (high - low)
        assert middle == pytest.approx(cheap + share * (dear - cheap))


def test_beyond_the_last_point_the_cost_goes_on_as_it_went() -> None:
    curve = StepCostModel((1, 4, 8), (1.0, 2.0, 4.0))
    assert curve.of_rows(12) == 6.0
    assert curve.of_rows(108) == 54.0


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
    assert curve.drafting_among(share).of_rows(4) == 2.0


def test_what_follows_another_size_is_not_counted_and_the_fastest_of_the_others_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = [9.0, 9.0] * (REPEATS - 1)
    timed = Machine({1: [0.1, 2.0, *slow], 4: [2.5], 8: [9.0, 2.75], 12: [3.0]})
    curve = timed.measured(monkeypatch, 12)
    assert curve.seconds == (2.0, 2.5, 2.75, 3.0)


def test_a_size_that_took_longer_than_a_larger_one_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    curve = machine(2.0, 1.0, 3.0, 2.5).measured(monkeypatch, 12)
    assert curve.seconds == (1.0, 1.0, 2.5, 2.5)


def test_what_a_longer_context_takes_is_measured_by_sequence_and_by_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed = Machine({rows: [rows / 4] for rows in ROWS}, column=0.25, row_column=0.125)
    curve = timed.measured(monkeypatch, 64, (256, 1024))
    assert (curve.context, curve.column, curve.row_column) == (256, 0.25, 0.125)
    for rows, sequences, context in ((1, 1, 256), (8, 1, 512), (32, 4, 300), (16, 16, 1024)):
        expected = rows / 4 + context * (0.25 * sequences + 0.125 * rows)
        assert curve(rows, Load(sequences, context)) == pytest.approx(expected)


def test_a_shorter_context_counts_as_the_one_that_was_timed() -> None:
    curve = StepCostModel((1, 4), (1.0, 2.0), context=256, column=0.5, row_column=0.25)
    assert curve(4, Load(1, 10)) == curve(4, Load(1, 256)) == 2.0


def test_a_longer_context_that_was_quicker_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Machine({rows: [1e6] for rows in ROWS}, column=-0.25)
    curve = timed.measured(monkeypatch, 64, (256, 1024))
    assert (curve.column, curve.row_column) == (0.0, 0.0)


@pytest.mark.parametrize("most", [4, 11, 64, 10_000])
def test_no_forward_has_more_rows_than_it_may(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = machine(*[1.0] * len(ROWS))
    curve = timed.measured(monkeypatch, most)
    assert max(timed.ran) == max(curve.rows) == max(r for r in ROWS if r <= most)
