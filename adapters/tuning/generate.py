"""Self-generated data: the model's own greedy answers in the place of every assistant turn.

Conversations advance a turn at a time, all of them together, so that the answer source can
batch; later turns follow the model's own earlier ones. Rounds are kept in a JSON Lines file and
a run started again goes on after the last whole one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adapters.tuning.layout import Sample
from adapters.tuning.prompts import Conversation
from adapters.tuning.protocols import AnswerSource

# Renders messages and tools up to the point where the assistant writes; token ids.
Render = Callable[[list[dict[str, Any]], list[dict[str, Any]] | None], list[int]]
CONVERSATIONS_AT_ONCE = 32


def generate(
    conversations: Sequence[Conversation],
    source: AnswerSource,
    render: Render,
    decode: Callable[[list[int]], str],
    file: Path,
    *,
    max_tokens: int,
    max_length: int,
    title: str,
) -> list[Sample]:
    """One sample a conversation, as far as the model's answers were whole and fit `max_length`.

    decode: an answer's text, to put into the conversation.
    """
    done = [Sample(**json.loads(line)) for line in _lines(file)]
    samples = [Sample(s.token_ids, [(a, b) for a, b in s.spans]) for s in done]
    with file.open("a") as log:
        bar = tqdm(total=len(conversations), initial=len(samples), desc=title, unit="conversation")
        for first in range(len(samples), len(conversations), CONVERSATIONS_AT_ONCE):
            batch = conversations[first : first + CONVERSATIONS_AT_ONCE]
            for sample in _answer(batch, source, render, decode, max_tokens, max_length):
                samples.append(sample)
                record = {"token_ids": sample.token_ids, "spans": sample.spans}
                log.write(json.dumps(record) + "\n")
                bar.update()
            log.flush()
        bar.close()
    return samples


def _answer(
    batch: Sequence[Conversation],
    source: AnswerSource,
    render: Render,
    decode: Callable[[list[int]], str],
    max_tokens: int,
    max_length: int,
) -> list[Sample]:
    """Let the model write every assistant turn of the conversations."""
    said: list[list[dict[str, Any]]] = [[] for _ in batch]
    samples = [Sample([], []) for _ in batch]
    turns = [_turns(c.messages) for c in batch]
    open_ = set(range(len(batch)))
    while open_:
        asked: list[int] = []
        prompts: list[list[int]] = []
        for i in sorted(open_):
            if not turns[i]:
                open_.remove(i)
                continue
            said[i] += turns[i].pop(0)
            prompt = render(said[i], batch[i].tools)
            if len(prompt) + max_tokens > max_length:
                open_.remove(i)
                continue
            asked.append(i)
            prompts.append(prompt)
        for i, prompt, answer in zip(
            asked, prompts, source.answers(prompts, max_tokens), strict=True
        ):
            spans = samples[i].spans
            kept = prompt[: len(samples[i].token_ids)] == samples[i].token_ids
            if len(answer) >= max_tokens or not kept:
                open_.remove(i)
                continue
            samples[i] = Sample(prompt + answer, [*spans, (len(prompt), len(prompt + answer))])
            said[i].append({"role": "assistant", "content": decode(answer)})
    return samples


def _turns(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
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


def _lines(file: Path) -> list[str]:
    """Whole lines of a file; one that a kill cut short is taken off it."""
    text = file.read_text() if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole)
    return whole.splitlines()
