"""A dashboard's JSON as data, and its expressions as Prometheus takes them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
DATASOURCES = Path(__file__).parent / "provisioning" / "datasources"


@dataclass(frozen=True, slots=True)
class Target:
    """expr: in PromQL, with Grafana's variables. legend: a series' name, `{{label}}` filled in."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A place in a grid of 24 columns, and what is drawn there.

    kind: timeseries, stat or bargauge. unit: Grafana's name of it. stacked: series add up.
    minimum, maximum: of the axis, where it does not follow the data.
    """

    id: int
    title: str
    kind: str
    unit: str
    x: int
    y: int
    width: int
    height: int
    targets: list[Target]
    stacked: bool = False
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Dashboard:
    """title, panels; document: all of it, as Grafana reads it."""

    title: str
    panels: list[Panel]
    document: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> Dashboard:
        """The dashboard in a file."""
        document = json.loads(file.read_text())
        return cls(document["title"], [_panel(p) for p in document["panels"]], document)


def filled(expr: str, rate_interval: str) -> str:
    """`expr` with every model and instance chosen.

    rate_interval: what Grafana would take, at least four times the scrape interval.
    """
    return re.sub(r"\$\w+", ".*", expr.replace("$__rate_interval", rate_interval))


def named(legend: str, labels: dict[str, str]) -> str:
    """A series' name."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend)


def _panel(panel: dict[str, Any]) -> Panel:
    place, defaults = panel["gridPos"], panel["fieldConfig"]["defaults"]
    stacking = defaults.get("custom", {}).get("stacking", {}).get("mode", "none")
    return Panel(
        id=panel["id"],
        title=panel["title"],
        kind=panel["type"],
        unit=defaults["unit"],
        x=place["x"],
        y=place["y"],
        width=place["w"],
        height=place["h"],
        targets=[Target(target["expr"], target["legendFormat"]) for target in panel["targets"]],
        stacked=stacking == "normal",
        minimum=defaults.get("min"),
        maximum=defaults.get("max"),
    )
