"""bita tune: an adapter for a model of your own (bi-directional tuning)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.format import BitaAdapter
    from adapters.tuning.layout import Sample
    from adapters.tuning.recipe import TuningRecipe
    from engine.model.loader import LoadedModel

NAME = "tune"
HELP = "Tune a BiTA adapter: a few MB that make a frozen model answer sooner."
EXAMPLE = """example:
  bita tune --model ./Qwen2.5-0.5B-Instruct --prompts prompts.jsonl --out ./my-adapter

prompts.jsonl holds one conversation a line, {"messages": [...]} or {"prompt": "..."}; the model
writes the assistant's turns itself. A run that was stopped goes on when started again.
Then: bita serve --model ./Qwen2.5-0.5B-Instruct --adapter fast=./my-adapter
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bita tune`."""
    add = parser.add_argument
    add("--model", required=True, type=Path, metavar="DIR", help="folder of the frozen model")
    add("--prompts", required=True, type=Path, metavar="FILE", help="conversations to learn on")
    add(
        "--held-out",
        type=Path,
        metavar="FILE",
        help="conversations to evaluate on (default: a tenth of --prompts)",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the adapter")
    add(
        "--conversations",
        type=int,
        default=400,
        metavar="N",
        help="conversations to learn on (default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=int,
        default=256,
        metavar="N",
        help="longest answer (default: %(default)s)",
    )
    add(
        "--max-length",
        type=int,
        default=1024,
        metavar="N",
        help="longest conversation in tokens (default: %(default)s)",
    )
    add("--steps", type=int, default=600, help="optimiser steps (default: %(default)s)")
    add(
        "--batch",
        type=int,
        default=12,
        metavar="N",
        help="conversations a step (default: %(default)s)",
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
    add("--learning-rate", type=float, default=3e-2, metavar="R", help="peak (default: 0.03)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--seed", type=int, default=0, help="of everything random (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Generate, train, evaluate, export, and check that the adapter changes no token."""
    from adapters.errors import AdapterError
    from engine.errors import EngineError

    try:
        return _tune(options)
    except (AdapterError, EngineError) as error:
        print(f"bita tune: {error}", file=sys.stderr)
        return 1


def _tune(options: argparse.Namespace) -> int:
    from adapters.tuning.evaluate import evaluate
    from adapters.tuning.export import export
    from adapters.tuning.recipe import TuningRecipe
    from adapters.tuning.target import TargetModel
    from adapters.tuning.trainer import Tuner
    from engine.attention.interface import NAME as SERVING
    from engine.load import base_shape
    from engine.model.loader import load_model

    recipe = TuningRecipe(
        num_prompts=options.prompt_tokens,
        num_masks=options.masks,
        steps=options.steps,
        conversations=options.batch,
        groups=options.groups,
        learning_rate=options.learning_rate,
        successor_rank=options.successor_rank,
        seed=options.seed,
    )
    loaded = load_model(options.model, options.device)
    learn, held_out = _samples(options, loaded)
    target = TargetModel(loaded.model)
    tuner = Tuner(target, base_shape(loaded), recipe, learn)
    tuner.fit(options.out / "run")
    trained = (tuner.prompt_kv, tuner.mask_embeddings)
    evaluation = evaluate(target, held_out, *trained, recipe.ranks, tuner.successor)
    adapter = export(options.out, base_shape(loaded), recipe, evaluation, *trained, tuner.successor)
    _show(recipe, adapter)
    loaded.model.set_attn_implementation(SERVING)
    return _receipt(options, loaded, adapter, held_out)


def _samples(options: argparse.Namespace, loaded: LoadedModel) -> tuple[list[Sample], list[Sample]]:
    """The model's own answers to the conversations to learn on and to the held-out ones."""
    from tokenizers import Tokenizer

    from adapters.errors import AdapterError
    from adapters.tuning import prompts
    from adapters.tuning.generate import generate
    from engine.answers import EngineAnswers
    from engine.config import EngineConfig
    from engine.engine import Engine
    from server.chat_template import ChatTemplate

    template = ChatTemplate.load(options.model)
    if template is None:
        raise AdapterError(f"{options.model} has no chat template")
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))

    def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[int]:
        text = template.render(messages, tools)
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    learn = prompts.load(options.prompts)
    if options.held_out:
        held_out = prompts.load(options.held_out)
    else:
        learn, held_out = prompts.split(learn, held_out=0.1, seed=options.seed)
    config = EngineConfig(model=str(options.model), max_num_seqs=32)
    source = EngineAnswers(Engine(config, loaded, {}))
    folder = options.out / "run"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"learn": options.conversations, "held-out": max(1, options.conversations // 8)}
    parts = []
    for name, conversations in (("learn", learn), ("held-out", held_out)):
        parts.append(
            generate(
                conversations[: sizes[name]],
                source,
                render,
                tokenizer.decode,
                folder / f"{name}.jsonl",
                max_tokens=options.max_tokens,
                max_length=options.max_length,
                title=f"answers to {name}",
            )
        )
    return parts[0], parts[1]


def _show(recipe: TuningRecipe, adapter: BitaAdapter) -> None:
    from rich.console import Console
    from rich.table import Table

    profile = adapter.config.profile
    table = Table(title="held-out hit rates, by depth and rank")
    for column in ("depth", *(f"rank {rank}" for rank in range(1, 6)), "places"):
        table.add_column(column, justify="right")
    for depth, (rates, count) in enumerate(zip(profile.rates, profile.counts, strict=True), 1):
        table.add_row(str(depth), *(f"{rate:.3f}" for rate in rates[:5]), str(count))
    console = Console()
    console.print(table)
    length = adapter.config.tuning["acceptance_length_comb"]
    console.print(f"acceptance length of the paper's comb: {length:.2f} tokens a forward")


def _receipt(
    options: argparse.Namespace,
    loaded: LoadedModel,
    adapter: BitaAdapter,
    held_out: list[Sample],
) -> int:
    """Serve held-out prompts with the adapter; their plain answers are known already."""
    from engine.answers import EngineAnswers
    from engine.config import EngineConfig
    from engine.engine import Engine

    engine = Engine(EngineConfig(model=str(options.model), tree="comb"), loaded, {"new": adapter})
    spans = [(s.token_ids, *s.spans[0]) for s in held_out if s.spans][:16]
    prompts = [ids[:start] for ids, start, _ in spans]
    answers = EngineAnswers(engine).answers(prompts, options.max_tokens)
    same = sum(a == ids[start:end] for a, (ids, start, end) in zip(answers, spans, strict=True))
    lengths = engine.stats().speculation.acceptance_lengths
    mean = sum(n * (i + 1) for i, n in enumerate(lengths)) / max(1, sum(lengths))
    print(
        f"with the adapter, {same} of {len(spans)} held-out answers are token for token those of "
        f"plain decoding; {mean:.2f} tokens a forward"
    )
    return 0 if same == len(spans) or loaded.dtype.itemsize < 4 else 1
