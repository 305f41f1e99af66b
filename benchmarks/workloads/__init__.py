"""Workloads by name."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.sessions import Workload
from benchmarks.workloads.conversations import DATA, Conversations, ToolCalls
from benchmarks.workloads.texts import Code, Copy, Edit

NAMES = ("conversations", "tools", "copy", "edit", "code")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is asked: --workload, --prompts and --turns."""
    parser.add_argument(
        "--workload",
        default="conversations",
        choices=NAMES,
        help="conversations turn by turn; function calls; a text that repeats what stands before "
        "it; an answer predicted but for a word in ten; JSON (default: %(default)s)",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        default=DATA,
        help="prompt file in one of the forms of `bita tune` (default: the dialogues that ship)",
    )
    parser.add_argument(
        "--turns", type=int, default=None, help="turns of a conversation (default: all)"
    )


def workload(options: argparse.Namespace) -> Workload:
    """The workload that the options name."""
    match options.workload:
        case "tools":
            return ToolCalls(options.model, options.prompts)
        case "copy":
            return Copy(options.model, options.prompts)
        case "edit":
            return Edit(options.model, options.prompts)
        case "code":
            return Code(options.model, options.prompts)
    return Conversations(options.model, options.prompts, options.turns)
