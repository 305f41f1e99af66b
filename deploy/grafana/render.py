"""Draws the dashboards from a Prometheus, one PNG each: for the documents, and where no Grafana is.

    python -m deploy.grafana.render --prometheus http://127.0.0.1:9090 --minutes 10 --out docs

Ours, not Grafana's: the same panels, expressions and places, in plainer dress. Needs the extra
`bench` (matplotlib).
"""

from __future__ import annotations

import argparse
import io
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl

from deploy.grafana.dashboard import FOLDER, Dashboard, Panel, filled, named

mpl.use("Agg")
from matplotlib import dates, pyplot
from matplotlib.axes import Axes
from PIL import Image

POINTS, PALETTE = 240, 64
ROW_INCHES, COLUMN_INCHES, DPI, MARGIN = 0.32, 0.62, 80, 0.042
COLOURS = ("#56a64b", "#e0b400", "#3274d9", "#e02f44", "#a352cc", "#ff780a", "#37872d", "#8ab8ff")


class Prometheus:
    """Answers over one range of time. start, end: seconds since the epoch."""

    def __init__(self, url: str, start: float, end: float, rate_interval: str) -> None:
        self._url, self._start, self._end = url, start, end
        self._rate_interval = rate_interval

    def series(self, panel: Panel) -> list[tuple[str, list[datetime], list[float]]]:
        """Name, times and values of each series of a panel."""
        found = []
        for target in panel.targets:
            query = {
                "query": filled(target.expr, self._rate_interval),
                "start": self._start,
                "end": self._end,
                "step": (self._end - self._start) / POINTS,
            }
            answer = httpx.get(f"{self._url}/api/v1/query_range", params=query, timeout=60)
            answer.raise_for_status()
            for one in answer.json()["data"]["result"]:
                times = [datetime.fromtimestamp(at, UTC) for at, _ in one["values"]]
                values = [float(value) for _, value in one["values"]]
                found.append((named(target.legend, one["metric"]), times, values))
        return found


def draw(dashboard: Dashboard, prometheus: Prometheus, file: Path) -> None:
    """Write the dashboard as a picture."""
    rows = max(panel.y + panel.height for panel in dashboard.panels)
    figure = pyplot.figure(figsize=(24 * COLUMN_INCHES, (rows + 1) * ROW_INCHES), dpi=DPI)
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    figure.text(0.01, 1 - 0.7 / (rows + 1), dashboard.title, fontsize=13, weight="bold")
    note = f"drawn by deploy/grafana/render.py, not by Grafana, {moment}"
    figure.text(0.99, 1 - 0.7 / (rows + 1), note, fontsize=8, color="grey", ha="right")
    for panel in dashboard.panels:
        left, bottom = panel.x / 24 + MARGIN, 1 - (panel.y + panel.height + 1) / (rows + 1)
        axes = figure.add_axes(
            (
                left,
                bottom + 1.35 / (rows + 1),
                panel.width / 24 - MARGIN - 0.01,
                (panel.height - 2.6) / (rows + 1),
            )
        )
        axes.set_title(panel.title, fontsize=9, loc="left")
        series = prometheus.series(panel)
        {"timeseries": _lines, "stat": _figure, "bargauge": _bars}[panel.kind](axes, panel, series)
    drawn = io.BytesIO()
    figure.savefig(drawn)
    # A palette is enough for lines, and a third of the size.
    Image.open(drawn).convert("RGB").quantize(PALETTE).save(file, optimize=True)
    pyplot.close(figure)


def _lines(axes: Axes, panel: Panel, series: list[Any]) -> None:
    if panel.stacked and series:
        times = sorted({at for _, points, _ in series for at in points})
        columns = [dict(zip(points, values, strict=True)) for _, points, values in series]
        heights = [[_finite(column.get(at, 0.0)) for at in times] for column in columns]
        names = [name for name, *_ in series]
        axes.stackplot(times, heights, labels=names, colors=COLOURS, alpha=0.6)
    else:
        for number, (name, times, values) in enumerate(series):
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(times, values, label=name, color=colour, linewidth=1.2)
    axes.set_ylim(panel.minimum, panel.maximum)
    axes.yaxis.set_major_formatter(lambda value, _: _worded(value, panel.unit))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=6))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if series:
        legend = {"loc": "upper left", "bbox_to_anchor": (0, -0.1), "ncols": 6, "frameon": False}
        axes.legend(fontsize=7, handlelength=1, columnspacing=1, **legend)


def _figure(axes: Axes, panel: Panel, series: list[Any]) -> None:
    axes.axis("off")
    text = _worded(series[0][2][-1], panel.unit) if series else "no data"
    axes.text(0.5, 0.4, text, fontsize=20, ha="center", va="center", transform=axes.transAxes)


def _bars(axes: Axes, panel: Panel, series: list[Any]) -> None:
    latest = [(name, values[-1]) for name, _, values in sorted(series, key=lambda one: len(one[0]))]
    axes.barh([name for name, _ in latest], [value for _, value in latest], color=COLOURS[0])
    axes.invert_yaxis()
    axes.set_xlim(panel.minimum, panel.maximum)
    axes.xaxis.set_major_formatter(lambda value, _: _worded(value, panel.unit))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _finite(value: float) -> float:
    return value if value == value else 0.0


def _worded(value: float, unit: str) -> str:
    """As short as a tick wants it."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def main() -> None:
    """Draw every dashboard."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=30, help="up to now")
    parser.add_argument("--rate-interval", default="1m", help="four scrape intervals at least")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="FOLDER")
    args = parser.parse_args()
    end = time.time()
    prometheus = Prometheus(args.prometheus, end - args.minutes * 60, end, args.rate_interval)
    for file in sorted(FOLDER.glob("*.json")):
        draw(Dashboard.read(file), prometheus, args.out / f"{file.stem}.png")


if __name__ == "__main__":
    main()
