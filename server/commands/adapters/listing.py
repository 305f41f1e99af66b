"""bita adapters list, bita adapters show."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from server.commands.adapters.common import (
    Commands,
    add_command,
    bytes_text,
    load,
    parameters,
)

if TYPE_CHECKING:
    from rich.table import Table

    from adapters.format import AdapterConfig, BitaAdapter
    from adapters.profile import HitProfile

RANKS = 10


def add_list(commands: Commands) -> None:
    """Add `bita adapters list`."""
    parser = add_command(
        commands,
        "list",
        run_list,
        "List the adapters in a folder: what they belong to, and how good they are.",
        """example:
  bita adapters list ./adapters

DIR is a folder of adapter folders, or one itself. Acceptance is the number of tokens a forward
that tuning, or `verify --update`, measured with the paper's tree; plain decoding gives 1. Folders
that are no whole adapter are listed with the reason.
""",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the adapters are")


def add_show(commands: Commands) -> None:
    """Add `bita adapters show`."""
    parser = add_command(
        commands,
        "show",
        run_show,
        "Show everything about one adapter.",
        """example:
  bita adapters show ./my-adapter

The hit rate of rank r at depth d is how often the draft's r-th guess for the d-th token ahead
was what the model then said.
""",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the adapter's folder")


def run_list(options: argparse.Namespace) -> int:
    """Print the table; broken adapters are no failure of the list."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from adapters.card import acceptance_length
    from adapters.errors import AdapterError
    from adapters.format import WEIGHTS

    folders = adapter_folders(options.folder)
    if not folders:
        print(f"no adapters in {options.folder}")
        return 0
    table = Table(box=None, padding=(0, 0, 0, 1))
    for column in ("name", "base"):
        table.add_column(column, overflow="fold")
    for column in ("prompts", "masks", "parameters", "size", "acceptance"):
        table.add_column(column, justify="right")
    broken = []
    for folder in folders:
        name = folder.resolve().name
        try:
            config = load(folder).config
        except (AdapterError, OSError) as error:
            broken.append((name, str(error)))
            continue
        length = acceptance_length(config)
        table.add_row(
            escape(name),
            escape(base_text(config)),
            str(config.num_prompts),
            str(config.num_masks),
            f"{parameters(config):,}",
            bytes_text((folder / WEIGHTS).stat().st_size),
            "unmeasured" if length is None else f"{length:.2f}",
        )
    console = Console(highlight=False)
    if table.row_count:
        console.print(table)
    for name, reason in broken:
        console.print(f"[red]broken[/red] {escape(name)}: {escape(reason)}", soft_wrap=True)
    return 0


def adapter_folders(folder: Path) -> list[Path]:
    """The folder itself and those in it that hold a file of an adapter's.

    Raises AdapterError where there is no such folder.
    """
    from adapters.errors import AdapterError
    from adapters.format import CONFIG, WEIGHTS

    if not folder.is_dir():
        raise AdapterError(f"there is no folder {folder}")
    inside = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    return [f for f in (folder, *inside) if (f / CONFIG).exists() or (f / WEIGHTS).exists()]


def run_show(options: argparse.Namespace) -> int:
    """Print sizes, hit rates, and what tuning wrote down."""
    from rich.console import Console

    from adapters.format import WEIGHTS

    adapter = load(options.folder)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    facts = _facts(adapter, (options.folder / WEIGHTS).stat().st_size)
    width = max(len(name) for name in facts)
    console.print(f"BiTA adapter {options.folder.resolve().name}")
    for name, value in facts.items():
        console.print(f"  {name:<{width}}  {value}")
    profile = adapter.config.profile
    if not profile.measured:
        console.print(
            "\nIts hit rates were never measured; these are assumed (Vicuna-7B, arXiv 2405.18628). "
            f"`bita adapters verify {options.folder} --model DIR --update` measures them."
        )
    console.print(hit_table(profile))
    if adapter.config.tuning:
        console.print("tuning " + json.dumps(adapter.config.tuning, indent=2))
    return 0


def _facts(adapter: BitaAdapter, size: int) -> dict[str, str]:
    from adapters.card import acceptance_length

    config = adapter.config
    length = acceptance_length(config)
    shapes = {name: " x ".join(map(str, shape)) for name, shape in config.shapes().items()}
    return {
        "base": base_text(config),
        "K/V heads": f"{config.num_kv_heads} of {config.head_dim}",
        "prompts": f"{config.num_prompts} a layer",
        "masks": f"{config.num_masks}: drafts reach so many tokens ahead of the next one",
        "successor head": f"rank {config.successor_rank}" if config.successor_rank else "none",
        "parameters": f"{parameters(config):,}",
        "size": bytes_text(size),
        "tokens a forward": "not measured" if length is None else f"{length:.2f} (paper's comb)",
        **shapes,
    }


def base_text(config: AdapterConfig) -> str:
    """The base in a few words: its kind, layers and hidden size, vocabulary."""
    return (
        f"{config.model_type} {config.num_layers}x{config.hidden_size}, vocab {config.vocab_size}"
    )


def hit_table(profile: HitProfile) -> Table:
    """Hit rates, a row a depth."""
    from rich.table import Table

    ranks = min(RANKS, max(len(row) for row in profile.rates))
    table = Table(
        box=None, padding=(0, 0, 0, 1), title="hit rates, by depth and rank", title_justify="left"
    )
    for column in ("depth", *(f"{rank}" for rank in range(1, ranks + 1)), "any", "places"):
        table.add_column(column, justify="right")
    for depth, (rates, count) in enumerate(zip(profile.rates, profile.counts, strict=True), 1):
        shown = [f"{rate:.3f}" for rate in rates[:ranks]]
        shown += [""] * (ranks - len(shown))
        table.add_row(str(depth), *shown, f"{sum(rates):.3f}", str(count))
    return table
