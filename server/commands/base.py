"""What a command's module offers, and options that the environment may set."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Command(Protocol):
    """A module with these names is a command."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module's constant
        """The word after `bita`."""
        ...

    @property
    def HELP(self) -> str:  # noqa: N802
        """One sentence."""
        ...

    @property
    def EXAMPLE(self) -> str:  # noqa: N802
        """Shown below the options."""
        ...

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        ...

    def run(self, options: argparse.Namespace) -> int:
        """Do it; the exit status."""
        ...


def option(
    parser: argparse._ActionsContainer, flag: str, *, default: Any, help: str, **more: Any
) -> None:
    """Add `--some-flag`, which BITA_SOME_FLAG sets where the command line does not."""
    if "choices" in more:
        # argparse checks the choices of the command line alone.
        more["type"] = _one_of(more["choices"])
    variable = "BITA_" + flag.removeprefix("--").replace("-", "_").upper()
    parser.add_argument(
        flag,
        default=os.environ.get(variable, default),
        help=f"{help} [{variable}]",
        **more,
    )


def repeatable(parser: argparse._ActionsContainer, flag: str, *, help: str, metavar: str) -> None:
    """Add a `--flag` that may be given several times; its variable holds them comma-separated."""
    variable = "BITA_" + flag.removeprefix("--").replace("-", "_").upper()
    parser.add_argument(
        flag,
        action=_Replacing,
        default=[item for item in os.environ.get(variable, "").split(",") if item],
        metavar=metavar,
        help=f"{help} May be repeated. [{variable}, comma-separated]",
    )


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return check


class _Replacing(argparse.Action):
    """Collects values, the first one replacing the default instead of joining it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = getattr(namespace, self.dest)
        known = [] if given is self.default else given
        setattr(namespace, self.dest, [*known, values])
