"""Hit profiles: only probabilities, and a temperature a depth."""

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


@pytest.mark.parametrize("temperatures", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_refuses_what_is_no_temperature_a_depth(temperatures: list[float]) -> None:
    with pytest.raises(AdapterFormatError, match="temperatures"):
        HitProfile([[0.5], [0.5]], [1, 1], temperatures)


def test_probabilities_that_nobody_measured_are_taken_as_they_are() -> None:
    assert HitProfile([[0.5], [0.5]], [1, 1]).temperatures == [1.0, 1.0]
