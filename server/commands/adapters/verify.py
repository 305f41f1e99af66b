"""bita adapters verify: the same answers with and without the adapter, and how much sooner."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from server.commands.adapters.common import Commands, add_command, load
from server.commands.adapters.comparison import (
    Comparison,
    compare,
    encoded,
    load_model,
    measure,
    prompts_of,
)
from server.commands.adapters.listing import hit_table

if TYPE_CHECKING:
    from adapters.format import AdapterConfig, BitaAdapter
    from adapters.profile import HitProfile
    from adapters.tuning.evaluate import Evaluation


def add_verify(commands: Commands) -> None:
    """Add `bita adapters verify`."""
    parser = add_command(
        commands,
        "verify",
        run_verify,
        "Answer prompts with and without the adapter, and compare token for token.",
        """example:
  bita adapters verify ./my-adapter --model ./Qwen2.5-0.5B-Instruct --prompts prompts.jsonl

Exit status 1 if an answer differs in float32, where none may. In 16 bit, forwards of different
sizes round differently in any engine, so that near-ties can fall either way: differences are
counted there, and are no failure. prompts.jsonl is as for `bita tune`; each conversation is
answered at the first place where the assistant speaks.
""",
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="the adapter's folder")
    add("--model", required=True, type=Path, metavar="DIR", help="folder of its base model")
    add(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="prompts to answer (default: a handful of questions that come with BiTA)",
    )
    add(
        "--conversations",
        type=positive,
        default=16,
        metavar="N",
        help="how many of them (default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=positive,
        default=96,
        metavar="N",
        help="longest answer (default: %(default)s)",
    )
    add(
        "--tree",
        default="comb",
        metavar="SHAPE",
        help="shape of the draft: comb, chain, fitted:ROWS or auto (default: the paper's comb)",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add(
        "--dtype",
        default="float32",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="number format of the model (default: float32, where equality is strict)",
    )
    add(
        "--update",
        action="store_true",
        help="put the hit rates measured here into the adapter, in place of those it has",
    )


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def run_verify(options: argparse.Namespace) -> int:
    """Compare, measure, report; with --update, write the rates down."""
    from adapters.errors import AdapterMismatch
    from engine.config import EngineConfig
    from engine.load import base_shape

    adapter = load(options.folder)
    conversations = prompts_of(options.prompts, options.conversations)
    loaded = load_model(options.model, options.device, options.dtype)
    try:
        adapter.config.check_base(base_shape(loaded))
    except AdapterMismatch as error:
        raise AdapterMismatch(f"{options.folder} is not for {options.model}: {error}") from error
    prompts = encoded(options.model, conversations)
    config = EngineConfig(
        model=str(options.model), tree=options.tree, max_num_seqs=16, prefix_caching=False
    )
    comparison = compare(config, loaded, adapter, prompts, options.max_tokens)
    strict = loaded.dtype.itemsize >= 4
    _report(comparison, strict)
    if comparison.differing and strict:
        return 1
    evaluation = measure(loaded, adapter, comparison)
    if evaluation is not None:
        _show(evaluation)
    if options.update:
        return _update(options.folder, adapter, evaluation)
    return 0


def _report(comparison: Comparison, strict: bool) -> None:
    count, differing = len(comparison.prompts), comparison.differing
    print(
        f"{count - len(differing)} of {count} answers are token for token those of plain decoding; "
        f"{comparison.tokens_a_forward:.2f} tokens a forward"
    )
    for i in differing:
        plain, fast = comparison.plain[i], comparison.fast[i]
        place = next(
            (j for j, (a, b) in enumerate(zip(plain, fast, strict=False)) if a != b),
            min(len(plain), len(fast)),
        )
        print(f"prompt {i + 1}: first difference at token {place + 1} of the answer")
    if differing and strict:
        print("bita adapters: NOT lossless in float32; please report this", file=sys.stderr)
    elif differing:
        print("in 16 bit near-ties may fall either way: this is no failure; float32 is strict")


def _show(evaluation: Evaluation) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(hit_table(evaluation.profile))
    length = evaluation.acceptance_length
    console.print(f"acceptance length of the paper's comb: {length:.2f} tokens a forward")


def _update(folder: Path, adapter: BitaAdapter, evaluation: Evaluation | None) -> int:
    """Write the rates into the adapter's configuration and its card; the weights stay."""
    from adapters.errors import AdapterError

    if evaluation is None or not evaluation.profile.measured:
        raise AdapterError(f"{folder} was not updated: no hit rates could be measured")
    tuning = {
        **adapter.config.tuning,
        "acceptance_length_comb": evaluation.acceptance_length,
    }
    known = adapter.config.profile
    profile = with_measured(known, evaluation.profile)
    config = replace(adapter.config, profile=profile, tuning=tuning)
    _rewrite(folder, replace(adapter, config=config), config)
    print(f"{folder}: hit rates of {profile.counts[0]} places written")
    if known.counts[0] > profile.counts[0]:
        print(
            f"note: those before were of {known.counts[0]} places; more --conversations "
            "measure better"
        )
    return 0


def with_measured(known: HitProfile, measured: HitProfile) -> HitProfile:
    """The measured profile; a depth that no draft reached keeps what it had."""
    from adapters.profile import HitProfile

    chosen = [
        now if count else before
        for before, now, count in zip(
            zip(known.rates, known.temperatures, strict=True),
            zip(measured.rates, measured.temperatures, strict=True),
            measured.counts,
            strict=True,
        )
    ]
    return HitProfile([r for r, _ in chosen], measured.counts, [t for _, t in chosen])


def _rewrite(folder: Path, adapter: BitaAdapter, config: AdapterConfig) -> None:
    from adapters.card import NAME, card
    from adapters.format import CONFIG

    with tempfile.TemporaryDirectory(dir=folder, prefix=".update-") as part:
        adapter.save(part)
        (Path(part) / NAME).write_text(card(config))
        for name in (CONFIG, NAME):
            os.replace(Path(part) / name, folder / name)
