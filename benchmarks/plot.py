"""Throughput and latency against load, a line a side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def plot(points: Sequence[dict[str, Any]], load: str, title: str, file: Path) -> None:
    """Draw points as `benchmarks.serving` makes them; `file`'s ending names the format.

    load: key of the load in every point, "streams" or "rate".
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (speed, wait, rhythm) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    loads = [point[load] for point in points]
    for name in points[0]["sides"]:
        sides = [point["sides"][name] for point in points]
        speed.plot(loads, [side["tokens_per_second"] for side in sides], "o-", label=name)
        wait.plot(loads, [side["ttft"]["p50"] * 1e3 for side in sides], "o-", label=name)
        rhythm.plot(loads, [side["e2e"]["p50"] * 1e3 for side in sides], "o-", label=name)
    axes = (
        (speed, "tokens a second"),
        (wait, "time to first token, median, ms"),
        (rhythm, "time of an answer, median, ms"),
    )
    for panel, name in axes:
        panel.set_xscale("log", base=2)
        panel.set_xticks(loads, [f"{value:g}" for value in loads])
        panel.set_xlabel("sessions a second" if load == "rate" else load)
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
    for panel in (wait, rhythm):
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
    speed.set_ylim(bottom=0)
    speed.legend()
    figure.suptitle(title)
    figure.savefig(file)
    pyplot.close(figure)
