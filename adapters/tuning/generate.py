"""Self-generated data: the model's own answers in the place of every assistant turn.

Conversations advance a turn at a time, all of them together, so that the answer source can
batch; later turns follow the model's own earlier ones. Rounds are kept in a JSON Lines file and
a run started again goes on after the last whole one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adapters.errors import AdapterError
from adapters.tuning import files, parallel
from adapters.tuning.layout import Sample
from adapters.tuning.prompts import Conversation
from adapters.tuning.protocols import AnswerSource

# Renders messages and tools up to the point where the assistant writes; token ids.
Render = Callable[[list[dict[str, Any]], list[dict[str, Any]] | None], list[int]]
CONVERSATIONS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Answering:
    """How the model answers.

    max_tokens: of an answer. max_length: of a conversation, in tokens.
    temperature: of sampled answers; 0 is greedy. sampled_share: of the conversations, in [0, 1],
        that are sampled at it, evenly spread; the others are greedy.
    keep_cut: whether an answer cut off at `max_tokens` is kept, as its conversation's last one;
        text of a model that was never taught to end is mostly that.
    seed: of the noise.
    """

    max_tokens: int = 256
    max_length: int = 1024
    temperature: float = 0.0
    sampled_share: float = 1.0
    keep_cut: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 2:
            raise AdapterError(f"max_tokens must be at least 2, not {self.max_tokens}")
        if self.max_length <= self.max_tokens:
            raise AdapterError(
                f"max_length ({self.max_length}) must leave room for a prompt beside an answer of "
                f"max_tokens ({self.max_tokens})"
            )
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 100):
            raise AdapterError(f"temperature must be between 0 and 100, not {self.temperature}")
        if not 0 <= self.sampled_share <= 1:
            raise AdapterError(f"sampled_share must be between 0 and 1, not {self.sampled_share}")

    def temperature_of(self, number: int) -> float:
        """The temperature at which conversation `number` is answered."""
        share = self.sampled_share
        return self.temperature if int((number + 1) * share) > int(number * share) else 0.0


def generate(
    conversations: Sequence[Conversation],
    source: AnswerSource,
    render: Render,
    decode: Callable[[list[int]], str],
    file: Path,
    answering: Answering,
    title: str,
) -> list[Sample]:
    """One sample a conversation, as far as the model's answers were whole and fit `max_length`.

    decode: an answer's text, to put into the conversation. Several processes share the work; all
    get all samples. Raises AdapterError where `file` cannot be written.
    """
    samples = parallel.of_leader(_read(file) if parallel.leads() else [])
    bar = tqdm(
        total=len(conversations),
        initial=len(samples),
        desc=title,
        unit="conversation",
        disable=not parallel.leads(),
    )
    at_once = CONVERSATIONS_AT_ONCE * parallel.world()
    with bar:
        for first in range(len(samples), len(conversations), at_once):
            numbers = range(first, min(first + at_once, len(conversations)))[parallel.shard()]
            part = [conversations[number] for number in numbers]
            temperatures = [answering.temperature_of(number) for number in numbers]
            answered = _answer(part, temperatures, source, render, decode, answering)
            fresh = parallel.gather(answered)
            if parallel.leads():
                files.append(file, "".join(_line(sample) for sample in fresh))
            samples += fresh
            bar.update(len(fresh))
    return samples


def check_answers(samples: Sequence[Sample], masks: int, max_tokens: int, file: Path) -> None:
    """Raises AdapterError, with the remedy, where no answer has something for every mask.

    The last mask has to give the token `masks` places behind the first one of an answer.
    """
    lengths = [end - start for sample in samples for start, end in sample.spans]
    if not lengths:
        raise AdapterError(
            f"{file}: the model finished none of {len(samples)} conversations' answers within "
            f"max_tokens ({max_tokens}) and max_length: raise them, or take shorter prompts"
        )
    if max(lengths) <= masks:
        raise AdapterError(
            f"{file}: the longest answer has {max(lengths)} tokens, too few for {masks} masks: "
            "take fewer masks, or prompts with longer answers"
        )


def _answer(
    batch: Sequence[Conversation],
    temperatures: Sequence[float],
    source: AnswerSource,
    render: Render,
    decode: Callable[[list[int]], str],
    answering: Answering,
) -> list[Sample]:
    """Let the model write every assistant turn of the conversations."""
    said: list[list[dict[str, Any]]] = [[] for _ in batch]
    samples = [Sample([], []) for _ in batch]
    turns = [others_turns(c.messages) for c in batch]
    open_ = set(range(len(batch)))
    most = answering.max_tokens
    while open_:
        asked: list[int] = []
        prompts: list[list[int]] = []
        for i in sorted(open_):
            if not turns[i]:
                open_.remove(i)
                continue
            said[i] += turns[i].pop(0)
            try:
                prompt = render(said[i], batch[i].tools)
            except AdapterError:
                if not samples[i].spans:
                    raise
                prompt = []  # the result of a tool that the model's own answer has not called
            if not prompt or len(prompt) + most > answering.max_length:
                open_.remove(i)
                continue
            asked.append(i)
            prompts.append(prompt)
        heat = [temperatures[i] for i in asked]
        answers = source.answers(prompts, most, heat, answering.seed) if prompts else []
        for i, prompt, answer in zip(asked, prompts, answers, strict=True):
            cut = len(answer) >= most
            kept = prompt[: len(samples[i].token_ids)] == samples[i].token_ids
            if (cut and not answering.keep_cut) or not kept:
                open_.remove(i)
                continue
            span = (len(prompt), len(prompt) + len(answer))
            samples[i] = Sample(prompt + answer, [*samples[i].spans, span])
            said[i].append({"role": "assistant", "content": decode(answer)})
            if cut:
                open_.remove(i)
    return samples


def others_turns(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What others say before each place where the assistant speaks."""
    turns: list[list[dict[str, Any]]] = []
    others: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "assistant":
            turns.append(others)
            others = []
        else:
            others.append(message)
    if others and others[-1]["role"] == "user":
        turns.append(others)
    return [t for t in turns if t]


def _read(file: Path) -> list[Sample]:
    """The samples of a run begun before; a line that a kill cut short is taken off its file."""
    content = file.read_bytes() if file.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        files.replace(file, whole)
    try:
        records = [json.loads(line) for line in whole.splitlines()]
        return [Sample(r["token_ids"], [(a, b) for a, b in r["spans"]]) for r in records]
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{file} is damaged ({error}): remove it") from error


def _line(sample: Sample) -> str:
    return json.dumps({"token_ids": sample.token_ids, "spans": sample.spans}) + "\n"
