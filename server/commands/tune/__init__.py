"""bita tune: an adapter for a model of your own (bi-directional tuning)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from server.commands.tune import data

NAME = "tune"
HELP = "Tune a BiTA adapter: a few MB that make a frozen model answer sooner."
EXAMPLE = """example:
  bita tune --model ./Qwen2.5-0.5B-Instruct --prompts prompts.jsonl --out ./my-adapter --estimate
      what it will take: memory, disk and time; nothing is written
  bita tune --model ./Qwen2.5-0.5B-Instruct --prompts prompts.jsonl --out ./my-adapter
      the adapter; stopped, it goes on when started again
  bita serve --model ./Qwen2.5-0.5B-Instruct --adapter fast=./my-adapter
      the model with it
  torchrun --no-python --nproc-per-node 4 bita tune --model ... (as above)
      on four GPUs of one machine

Prompts are JSON Lines or a JSON array, packed by gzip or not, of {"messages": [...]} as in the
API, {"prompt": "..."}, {"instruction": "...", "input": "..."}, {"question": "..."}, MT-Bench's
{"turns": [...]} or ShareGPT's {"conversations": [...]}. Answers in them are not used: the model
writes its own. Take prompts like those you will serve; a few hundred do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bita tune`."""
    add = parser.add_argument
    add("--model", required=True, type=Path, metavar="DIR", help="folder of the frozen model")
    add("--prompts", required=True, type=Path, metavar="FILE", help="conversations to learn on")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the adapter")
    add(
        "--estimate",
        action="store_true",
        help="say how much memory, disk and time it takes, and stop; a few steps are timed",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="number format of the frozen model; what is tuned is float32 (default: auto)",
    )
    add("--seed", type=int, default=0, help="of everything random (default: 0)")
    data.add_arguments(parser)
    _add_recipe(parser)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    from_recipe = parser.add_argument_group("how it learns (the defaults are good ones)")
    add = from_recipe.add_argument
    add("--steps", type=int, default=600, help="optimiser steps (default: %(default)s)")
    add(
        "--batch",
        type=int,
        default=12,
        metavar="N",
        help="conversations a step, of all processes together (default: %(default)s)",
    )
    add("--groups", type=int, default=24, help="mask groups a conversation (default: %(default)s)")
    add(
        "--prompt-tokens",
        type=int,
        default=16,
        metavar="N",
        help="prompts a layer (default: %(default)s)",
    )
    add(
        "--masks",
        type=int,
        default=6,
        help="mask tokens: the depth of drafts (default: %(default)s)",
    )
    add(
        "--successor-rank",
        type=int,
        default=128,
        metavar="R",
        help="rank of the head that follows a draft's path; 0 for none, as in the paper "
        "(default: %(default)s)",
    )
    add(
        "--draft-vocabulary",
        type=int,
        default=32768,
        metavar="N",
        help="draft only the N tokens that the model uses most, which makes drafting cheaper where "
        "it knows more; may be changed when training is done (default: %(default)s)",
    )
    add("--learning-rate", type=float, default=3e-2, metavar="R", help="peak (default: 0.03)")


def run(options: argparse.Namespace) -> int:
    """Generate, train, evaluate, export, and check that the adapter changes no token.

    Whatever stands in the way is said in one sentence; the exit status is then 1, or 130 where
    the user stopped it.
    """
    import torch

    from adapters.errors import AdapterError
    from adapters.tuning import parallel
    from engine.errors import EngineError
    from server.commands.tune.work import tune

    try:
        return tune(options)
    except (AdapterError, EngineError) as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or options.out}: {error.strerror or error}"
    except (torch.OutOfMemoryError, MemoryError):
        reason = (
            "the memory does not suffice; a smaller --batch or --groups takes less, and "
            "--estimate says how much"
        )
    except KeyboardInterrupt:
        print("bita tune: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        parallel.leave()
    print(f"bita tune: {reason}", file=sys.stderr)
    return 1
