"""bita adapters: look at adapters, check them, and exchange them with the paper's official code."""

from __future__ import annotations

import argparse
import sys

from server.commands.adapters import exchange, listing, verify

NAME = "adapters"
HELP = "List, show, verify, import and export BiTA adapters."
EXAMPLE = """examples:
  bita adapters list ./adapters
      every adapter in a folder, broken ones with the reason
  bita adapters show ./my-adapter
      one adapter in full, with its hit rates by depth and rank
  bita adapters verify ./my-adapter --model ./Qwen2.5-0.5B-Instruct
      answer some prompts with and without it, and compare token for token
  bita adapters import ./checkpoint-5000 --model ./Llama-2-7b-chat-hf --out ./my-adapter
      take over a checkpoint of the paper's official code
  bita adapters export ./my-adapter --out official.safetensors
      the way back

`bita adapters COMMAND --help` says more of each.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        listing.add_list,
        listing.add_show,
        verify.add_verify,
        exchange.add_import,
        exchange.add_export,
    ):
        add(commands)


def run(options: argparse.Namespace) -> int:
    """Run the sub-command; what stands in its way is said in one sentence."""
    from adapters.errors import AdapterError
    from engine.errors import EngineError

    try:
        status: int = options.action(options)
        return status
    except (AdapterError, EngineError, OSError) as error:
        print(f"bita adapters: {error}", file=sys.stderr)
        return 1
