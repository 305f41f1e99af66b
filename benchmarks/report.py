"""Results as people and programs read them: tables, a Markdown file, JSON in the last line."""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rich.table
import torch
from rich.console import Console

from engine.processor import processor_name

WIDTH = 120
"""Columns of a table that no terminal shows."""


@dataclass(slots=True)
class Table:
    """A title, names of columns, rows of text."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """A row; floats below 100 get two digits after the point."""
        assert len(cells) == len(self.columns), cells
        self.rows.append([_text(cell) for cell in cells])

    def markdown(self) -> str:
        """The table as Markdown, under its title."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])

    def print(self) -> None:
        """The table in the terminal."""
        table = rich.table.Table()
        for column in self.columns:
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(*row)
        console = Console()
        if not console.is_terminal:
            console = Console(width=WIDTH)
        console.print(self.title, table, sep="\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where results go besides standard output."""
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here too")


def publish(tables: Sequence[Table], results: Any, markdown: Path | None) -> None:
    """Print tables, write them to a file if one is named, print results as one line of JSON."""
    for table in tables:
        table.print()
    if markdown is not None:
        markdown.write_text("\n\n".join(table.markdown() for table in tables) + "\n")
    print(json.dumps(results))


def machine() -> dict[str, Any]:
    """Where and with what a result was measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **{name: version(name) for name in ("torch", "transformers")},
    }


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Median over rounds of one side's figure over another's in the same round."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.2f}"
    return str(cell)
