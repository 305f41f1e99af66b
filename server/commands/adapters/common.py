"""What the sub-commands share: how they are added, and how an adapter is read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from adapters.format import AdapterConfig, BitaAdapter

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    name: str,
    action: Callable[[argparse.Namespace], int],
    help: str,
    more: str,
) -> argparse.ArgumentParser:
    """Add a sub-command; `more` is shown below its options."""
    parser = commands.add_parser(
        name,
        help=help,
        description=help,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(action=action)
    return parser


def load(folder: Path) -> BitaAdapter:
    """The adapter in a folder; raises AdapterFormatError that names the folder."""
    from adapters.errors import AdapterFormatError
    from adapters.format import BitaAdapter

    if not folder.is_dir():
        raise AdapterFormatError(f"there is no folder {folder}")
    try:
        adapter = BitaAdapter.load(folder)
    except AdapterFormatError as error:
        reason = str(error)
        raise AdapterFormatError(
            reason if str(folder) in reason else f"{folder}: {reason}"
        ) from error
    if not isinstance(adapter.config.tuning, dict):
        raise AdapterFormatError(f"{folder}: tuning must be an object")
    return adapter


def parameters(config: AdapterConfig) -> int:
    """Numbers in an adapter's weights file."""
    from math import prod

    return sum(prod(shape) for shape in config.shapes().values())


def bytes_text(count: int) -> str:
    """A file's size for people."""
    if count < 1024:
        return f"{count} B"
    power = min(3, (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"
