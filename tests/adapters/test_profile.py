"""Hit profiles: only probabilities, merged by their counts."""

from __future__ import annotations

import pytest

from adapters.errors import AdapterFormatError
from adapters.profile import HitProfile


@pytest.mark.parametrize(
    ("rates", "counts"),
    [
        ([], []),
        ([[0.5]], []),
        ([[0.5]], [1, 2]),
        ([[]], [1]),
        ([[1.5]], [1]),
        ([[-0.1]], [1]),
        ([[float("nan")]], [1]),
        ([[float("inf")]], [1]),
        ([[0.6, 0.6]], [1]),
    ],
)
def test_refuses_what_is_no_profile(rates: list[list[float]], counts: list[int]) -> None:
    with pytest.raises(AdapterFormatError):
        HitProfile(rates, counts)


def test_merge_weighs_by_counts() -> None:
    one = HitProfile([[0.4, 0.2], [0.1, 0.0]], [30, 0])
    two = HitProfile([[0.8, 0.0], [0.3, 0.2]], [10, 5])
    merged = one.merge(two)
    assert merged.counts == [40, 5]
    assert merged.rates[0] == pytest.approx([0.5, 0.15])
    assert merged.rates[1] == pytest.approx([0.3, 0.2])
    assert merged == two.merge(one)


def test_merge_of_nothing_is_nothing() -> None:
    empty = HitProfile([[0.0]], [0])
    assert empty.merge(empty) == empty


def test_merge_refuses_other_depths() -> None:
    with pytest.raises(ValueError, match="longer"):
        HitProfile([[0.1]], [1]).merge(HitProfile([[0.1], [0.1]], [1, 1]))
