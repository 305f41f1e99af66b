"""What records of calls amount to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.measures import Record, percentile, summary

finite = st.floats(-1e6, 1e6)


@given(st.lists(finite, min_size=1), st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


def test_latencies_count_from_when_the_call_was_intended() -> None:
    late = Record(intended=1.0, sent=5.0, ended=9.0, chunks=[6.0, 7.0, 9.0], tokens=7)
    assert late.ttft == 5.0
    assert late.e2e == 8.0
    assert late.gaps == [1.0, 2.0]
    assert late.tpot == pytest.approx(0.5)


def test_an_answer_without_text_has_its_first_token_at_its_end() -> None:
    empty = Record(intended=1.0, sent=1.0, ended=3.0, tokens=1)
    assert empty.ttft == empty.e2e == 2.0
    assert empty.gaps == []
    assert empty.tpot is None


def test_failed_calls_are_counted_and_no_more() -> None:
    good = Record(intended=0.0, sent=0.0, ended=2.0, chunks=[1.0, 2.0], tokens=10)
    bad = Record(intended=0.0, sent=0.0, ended=90.0, tokens=5, error="HTTP 500")
    result = summary([good, bad])
    assert (result["calls"], result["failed"], result["tokens"]) == (2, 1, 10)
    assert result["tokens_per_second"] == 5.0
    assert result["e2e"]["p99"] == 2.0


def test_a_run_in_which_all_failed_has_no_speed() -> None:
    result = summary([Record(intended=0.0, sent=0.0, error="refused")])
    assert result["tokens_per_second"] == 0.0
    assert math.isnan(result["ttft"]["p50"])
