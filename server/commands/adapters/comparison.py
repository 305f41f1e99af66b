"""Prompts answered with and without an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.commands.encoder import Encoder, before_the_assistant

if TYPE_CHECKING:
    from adapters.format import BitaAdapter
    from adapters.tuning.evaluate import Evaluation
    from adapters.tuning.prompts import Conversation
    from engine.config import EngineConfig
    from engine.model.loaded import LoadedModel

RANKS = 10


@dataclass(frozen=True, slots=True)
class Comparison:
    """Answers of both kinds, in the order of the prompts: token ids.

    tokens_a_forward: of the answers with the adapter, beyond each one's first token.
    """

    prompts: list[list[int]]
    plain: list[list[int]]
    fast: list[list[int]]
    tokens_a_forward: float

    @property
    def differing(self) -> list[int]:
        """Numbers of the prompts whose answers differ."""
        both = zip(self.plain, self.fast, strict=True)
        return [i for i, (plain, fast) in enumerate(both) if plain != fast]


def prompts_of(file: Path | None, count: int) -> list[Conversation]:
    """`count` of the user's prompts, drawn at random, or of those that come with BiTA.

    Raises AdapterError where the file is not one of prompts.
    """
    from adapters.tuning import prompts
    from server.commands.adapters.questions import QUESTIONS

    if file is None:
        asked = QUESTIONS[:count]
        return [prompts.Conversation([{"role": "user", "content": q}]) for q in asked]
    return prompts.sample(prompts.load(file), count, seed=0)


def load_model(folder: Path, device: str, dtype: str) -> LoadedModel:
    """The base model; raises UnsupportedModel, with the reason, where it cannot be loaded."""
    from transformers.utils import logging

    from engine.model import loader

    logging.disable_progress_bar()
    return loader.load_model(folder, device, dtype)


def encoded(model: Path, conversations: Sequence[Conversation]) -> list[list[int]]:
    """Token ids of each prompt, up to where the assistant first speaks.

    Raises AdapterError where tokenizer or template fail.
    """
    encoder = Encoder.load(model)
    return [encoder.encode(before_the_assistant(c.messages), c.tools) for c in conversations]


def compare(
    config: EngineConfig,
    loaded: LoadedModel,
    adapter: BitaAdapter,
    prompts: Sequence[list[int]],
    max_tokens: int,
) -> Comparison:
    """Answer the prompts that fit the model's context without the adapter, then with it.

    Raises AdapterError where none fits, or the configuration names a tree nobody knows.
    """
    from adapters.errors import AdapterError
    from engine.answers import EngineAnswers
    from engine.engine import Engine

    engine = Engine(config, loaded, {})
    fitting = [p for p in prompts if p and len(p) + max_tokens <= engine.max_model_len]
    if len(fitting) < len(prompts):
        print(f"{len(prompts) - len(fitting)} prompts do not fit the model's context: left out")
    if not fitting:
        raise AdapterError("there is no prompt left to answer")
    print(f"answering {len(fitting)} prompts without the adapter, then with it", flush=True)
    plain = EngineAnswers(engine).answers(fitting, max_tokens)
    del engine  # its KV cache goes before the next one's comes
    try:
        engine = Engine(config, loaded, {"adapter": adapter})
    except ValueError as error:
        raise AdapterError(str(error)) from error
    fast = EngineAnswers(engine).answers(fitting, max_tokens)
    mean = engine.stats().speculation.mean_acceptance_length
    return Comparison(fitting, plain, fast, mean)


def measure(loaded: LoadedModel, adapter: BitaAdapter, comparison: Comparison) -> Evaluation | None:
    """Hit rates on the plain answers; None for models that tuning does not know."""
    from adapters.errors import AdapterError
    from adapters.tuning.evaluate import evaluate
    from adapters.tuning.layout import Sample
    from adapters.tuning.target import TargetModel

    samples = [
        Sample(prompt + answer, [(len(prompt), len(prompt) + len(answer))])
        for prompt, answer in zip(comparison.prompts, comparison.plain, strict=True)
    ]
    try:
        target = TargetModel(loaded.model)
    except AdapterError as error:
        print(f"no hit rates by rank: {error}")
        return None
    return evaluate(
        target,
        samples,
        adapter.prompt_kv.to(loaded.device),
        adapter.mask_embeddings.to(loaded.device),
        RANKS,
        adapter.successor.to(loaded.device) if adapter.successor else None,
    )
