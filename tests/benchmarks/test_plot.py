"""The plot of a table of loads."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")


def test_every_side_is_a_line(tmp_path: Path) -> None:
    from benchmarks.plot import plot

    side = {"tokens_per_second": 10.0, "ttft": {"p50": 0.1}, "e2e": {"p50": 1.0}}
    points = [{"streams": n, "sides": {"bita": side, "plain": side}} for n in (1, 4)]
    plot(points, "streams", "conversations", tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert "bita" in text
    assert "plain" in text
