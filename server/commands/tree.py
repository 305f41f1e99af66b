"""bita tree: the best fixed draft tree for a budget, and what a forward costs here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree

    from engine.speculation.cost import StepCostModel
    from engine.speculation.fit import Hits
    from engine.speculation.tree import TreeTopology

NAME = "tree"
HELP = "Show the draft trees that pay: for an adapter's hit rates, and on this machine."
EXAMPLE = """examples:
  bita tree
      the best fixed trees of 4 to 64 rows for the embedded model's adapter
  bita tree --adapter ./my-adapter --rows 24
      the best tree of at most 24 rows, drawn; `bita serve --tree fitted:24` uses it
  bita tree --show
      what a forward costs on this machine by its rows, and what --tree auto makes of it
  bita tree --measure
      the same, timed anew: after a start on a busy machine, say

A row is one token's worth of work in a forward: the root, a draft, or a mask.
"""

BUDGETS = (4, 8, 12, 16, 24, 32, 48, 64)
STREAMS = (1, 2, 4, 8, 16, 32, 64)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bita tree`."""
    from models import DEFAULT_ADAPTER, DEFAULT_MODEL

    add = parser.add_argument
    add("--adapter", type=Path, default=DEFAULT_ADAPTER, metavar="DIR", help="an adapter's folder")
    add("--rows", type=int, metavar="N", help="draw the best tree of at most N rows")
    add("--show", action="store_true", help="show the cost of a forward on this machine")
    add("--measure", action="store_true", help="time forwards anew and show their cost")
    add("--model", type=Path, default=DEFAULT_MODEL, metavar="DIR", help="the adapter's base model")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="number format of the model (default: auto, the fastest here)",
    )


def run(options: argparse.Namespace) -> int:
    """Show what was asked for; what stands in its way is said in one sentence."""
    from rich.console import Console

    from adapters.errors import AdapterError
    from adapters.format import BitaAdapter
    from engine.errors import EngineError

    console = Console()
    try:
        if options.rows is not None and options.rows < 1:
            raise AdapterError("--rows must be at least 1")
        adapter = BitaAdapter.load(options.adapter).config
        hits = adapter.profile.rates
        if options.show or options.measure:
            cost = _cost(options).drafting_among(adapter.draft_share)
            console.print(_cost_table(cost), _plan_table(hits, cost))
        if options.rows is not None:
            console.print(_drawing(hits, options.rows))
        elif not (options.show or options.measure):
            console.print(_budget_table(hits))
    except (AdapterError, EngineError, OSError) as error:
        print(f"bita tree: {error}", file=sys.stderr)
        return 1
    return 0


def _cost(options: argparse.Namespace) -> StepCostModel:
    from engine.config import EngineConfig
    from engine.load import load_engine
    from engine.step_cost import forget

    if options.measure:
        forget()
    config = EngineConfig(
        model=str(options.model),
        adapters={"adapter": str(options.adapter)},
        device=options.device,
        dtype=options.dtype,
    )
    cost = load_engine(config).cost
    assert cost is not None, "trees are automatic, and there is an adapter"
    return cost


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, box=None, padding=(0, 0, 0, 2), title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _cost_table(cost: StepCostModel) -> Table:
    table = _table("a forward on this machine", "rows", "ms", "of one row")
    for rows, seconds in zip(cost.rows, cost.seconds, strict=True):
        table.add_row(str(rows), f"{seconds * 1000:.2f}", f"{seconds / cost.seconds[0]:.2f}x")
    column, row_column = (further * 1e6 for further in (cost.column, cost.row_column))
    table.caption = (
        f"behind {cost.context} tokens; a further one {column:.2f} us a sequence and "
        f"{row_column:.2f} us a row; {cost.level * 1000:.2f} ms a level of drafts"
    )
    table.caption_justify = "left"
    return table


def _plan_table(hits: Hits, cost: StepCostModel) -> Table:
    """What the planner expects of its choice, by the number of sequences that decode."""
    from engine.speculation.cost import Load
    from engine.speculation.planner import Adaptive

    planner = Adaptive(hits, cost)
    columns = ("sequences", "rows each", "tokens a forward", "of plain decoding")
    table = _table("what --tree auto makes of it, at the adapter's hit rates", *columns)
    for streams in STREAMS:
        load = Load(streams, cost.context)
        outlook = planner.outlook(load)
        plain = 1.0 / cost(streams, load)
        speed = outlook.tokens_per_second(load, cost) / plain
        table.add_row(
            str(streams), f"{outlook.mean_rows:.1f}", f"{outlook.mean_tokens:.2f}", f"{speed:.2f}x"
        )
    return table


def _budget_table(hits: Hits) -> Table:
    from engine.speculation.fit import expected_length, fit_tree
    from engine.speculation.planner import named

    columns = ("tree", "rows", "drafts", "masks", "tokens a forward")
    table = _table("the best fixed trees at the adapter's hit rates", *columns)
    shapes = {f"fitted:{rows}": fit_tree(hits, rows) for rows in BUDGETS}
    shapes |= {name: named(name, hits) for name in ("chain", "comb")}
    for name, tree in shapes.items():
        drafts, masks = len(tree.parents) - 1, sum(tree.masks)
        length = f"{expected_length(tree, hits):.2f}"
        table.add_row(name, str(tree.num_rows), str(drafts), str(masks), length)
    return table


def _drawing(hits: Hits, rows: int) -> Tree:
    """The tree with its nodes' ranks, masks and probabilities of being accepted."""
    from rich.tree import Tree

    from engine.speculation.fit import expected_length, fit_tree, path_probabilities

    topology = fit_tree(hits, rows)
    reached = path_probabilities(topology, hits)
    length = expected_length(topology, hits)
    drawing = Tree(f"{topology.num_rows} rows, {length:.2f} tokens a forward")
    branches: dict[int, Tree] = {-1: drawing}
    for node, parent in enumerate(topology.parents):
        name = "root" if parent < 0 else f"rank {topology.ranks[node] + 1}, {reached[node]:.0%}"
        branches[node] = branches[parent].add(f"{name}{_masks_text(topology, node)}")
    return drawing


def _masks_text(topology: TreeTopology, node: int) -> str:
    masks = topology.masks[node]
    return f", {masks} mask{'s' * (masks > 1)}" if masks else ""
