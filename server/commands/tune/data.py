"""What `bita tune` learns from: prompt files, and the model's own answers to them."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from server.commands.encoder import FILES, Encoder, before_the_assistant

if TYPE_CHECKING:
    from adapters.tuning.generate import Answering
    from adapters.tuning.layout import Sample
    from adapters.tuning.prompts import Conversation
    from engine.model.loaded import LoadedModel

HELD_OUT = 0.1
ANSWERS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is to be answered. learn, held_out: to train on and to evaluate on. plan: how."""

    encoder: Encoder
    plan: Answering
    learn: list[Conversation]
    held_out: list[Conversation]

    def origin(self, model: Path, dtype: str) -> dict[str, object]:
        """Everything that decides the answers, by the name a user knows it by."""
        from engine.model.loader import fingerprint

        digests = {
            "tokenizer": [_content(model / name) for name in FILES],
            "prompts": [[c.messages, c.tools] for c in self.learn],
            "held-out prompts": [[c.messages, c.tools] for c in self.held_out],
        }
        named = {name: _digest(value) for name, value in digests.items()}
        return {"model": fingerprint(model, dtype), **named, **asdict(self.plan)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide what is learnt from."""
    group = parser.add_argument_group("what it learns from")
    add = group.add_argument
    add(
        "--held-out",
        type=Path,
        metavar="FILE",
        help="conversations to evaluate on (default: a tenth of --prompts)",
    )
    add(
        "--conversations",
        type=int,
        default=400,
        metavar="N",
        help="conversations to learn on, drawn at random; an eighth as many to evaluate on "
        "(default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=int,
        default=256,
        metavar="N",
        help="longest answer; a chat model's longer ones are dropped (default: %(default)s)",
    )
    add(
        "--max-length",
        type=int,
        default=1024,
        metavar="N",
        help="longest conversation in tokens (default: %(default)s)",
    )
    add(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="sample the answers to learn on at this temperature, if requests will mostly be "
        "sampled; 0 is greedy (default: 0)",
    )
    add(
        "--sampled-share",
        type=float,
        default=1.0,
        metavar="S",
        help="share of the conversations that --temperature is for, 0 to 1; the others are "
        "answered greedily (default: 1)",
    )


def read(options: argparse.Namespace) -> Prompts:
    """The prompt files and the model's tokenizer; its weights are not needed.

    A model without a chat template answers once: nobody told it what a turn is.
    Raises AdapterError or UnsupportedModel that names the file or the value at fault.
    """
    from adapters.errors import AdapterError
    from adapters.tuning import prompts
    from adapters.tuning.generate import Answering
    from engine.model.facts import model_facts
    from engine.model.loader import read_config

    if options.conversations < 1:
        raise AdapterError(f"conversations must be at least 1, not {options.conversations}")
    positions = model_facts(read_config(options.model).get_text_config()).max_positions
    encoder = Encoder.load(options.model)
    plan = Answering(
        max_tokens=options.max_tokens,
        max_length=min(options.max_length, positions),
        temperature=options.temperature,
        sampled_share=options.sampled_share,
        keep_cut=encoder.template is None,
        seed=options.seed,
    )
    learn = prompts.load(options.prompts)
    if options.held_out:
        held_out = prompts.load(options.held_out)
    else:
        learn, held_out = prompts.split(learn, HELD_OUT, options.seed)
    learn = prompts.sample(learn, options.conversations, options.seed)
    held_out = prompts.sample(held_out, max(1, options.conversations // 8), options.seed)
    if encoder.template is None:
        learn, held_out = _first_turns(learn), _first_turns(held_out)
    return Prompts(encoder, plan, learn, held_out)


def _first_turns(given: Sequence[Conversation]) -> list[Conversation]:
    return [replace(c, messages=before_the_assistant(c.messages)) for c in given]


def answers(
    prompts: Prompts, loaded: LoadedModel, folder: Path, masks: int
) -> tuple[list[Sample], list[Sample]]:
    """The model's own answers to the conversations to learn on and to the held-out ones.

    Those to learn on are sampled if asked for, the held-out ones always greedy: hit rates are
    measured on them, and the served answers compared.
    Raises AdapterError where a file of `folder` is damaged, or there is nothing to learn.
    """
    from adapters.tuning import parallel
    from adapters.tuning.generate import check_answers, generate
    from engine.answers import EngineAnswers
    from engine.config import EngineConfig
    from engine.engine import Engine
    from engine.model.memory import release

    encoder, plan = prompts.encoder, prompts.plan
    config = EngineConfig(model="", max_num_seqs=ANSWERS_AT_ONCE, max_model_len=plan.max_length)
    source = EngineAnswers(Engine(config, loaded, {}))
    plan = replace(plan, max_length=source.engine.max_model_len)
    parts = []
    for name, part, how in (
        ("learn", prompts.learn, plan),
        ("held-out", prompts.held_out, replace(plan, temperature=0.0)),
    ):
        file = folder / f"{name}.jsonl"
        answered = generate(
            part, source, encoder.encode, encoder.decode, file, how, f"answers to {name}"
        )
        check_answers(answered, masks, plan.max_tokens, file)
        if parallel.leads():
            _report(name, answered)
        parts.append(answered)
    del source  # training wants its KV cache's memory
    release(loaded.device)
    return parts[0], parts[1]


def _report(name: str, answered: Sequence[Sample]) -> None:
    whole = sum(1 for sample in answered if sample.spans)
    tokens = sum(end - start for sample in answered for start, end in sample.spans)
    dropped = len(answered) - whole
    more = f"; {dropped} without, too long or cut off, are left out" if dropped else ""
    print(f"{name}: {whole} conversations with {tokens} tokens of answers{more}", flush=True)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _content(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
