"""bita: the command line. Each command is a module of `server.commands`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version

from server.commands import adapters, batch, chat, serve, tree, tune
from server.commands.base import Command

COMMANDS: tuple[Command, ...] = (serve, chat, batch, tune, adapters, tree)
"""A command is registered by adding its module here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (the process's own, if None) name; its exit status."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    return command.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bita",
        description="Serve a language model over OpenAI's API, faster and word for word the same.",
    )
    parser.add_argument("--version", action="version", version=version("bita-serve"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        own = commands.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.HELP,
            epilog=command.EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(command=command)
    return parser
