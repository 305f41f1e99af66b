"""Playing conversations turn by turn, several at once, against anything that answers.

A conversation's user turns (and function results) are given; what the assistant says is the
model's own. The shipped set is a part of the Schema-Guided Dialogues' development split (CC BY-SA
4.0, google-research-datasets/dstc8-schema-guided-dialogue), which no training here ever saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from adapters.tuning.prompts import load

DATA = Path(__file__).parent / "data" / "sgd-dev.jsonl"
MAX_PROMPT = 1600

Render = Callable[[list[dict[str, Any]], list[dict[str, Any]] | None], str]


@dataclass(slots=True)
class Play:
    """One conversation on its way: what was said, and what others will say next."""

    turns: list[list[dict[str, Any]]]
    tools: list[dict[str, Any]] | None
    said: list[dict[str, Any]] = field(default_factory=list)


class Player:
    """Renders conversations for one model folder."""

    def __init__(self, model: Path, data: Path = DATA, render: Render | None = None) -> None:
        """render: turns messages and tools into text; None takes the server's way."""
        self.render = render or _template(model)
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.conversations = load(data)

    def plays(self, count: int) -> list[Play]:
        """The first `count` conversations, not yet begun."""
        return [Play(_turns(c.messages), c.tools) for c in self.conversations[:count]]

    def advance(self, play: Play) -> list[int] | None:
        """Let the others speak; the prompt for the assistant, or None at the end."""
        if not play.turns:
            return None
        play.said += play.turns.pop(0)
        text = self.render(play.said, play.tools)
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return list(ids) if len(ids) <= MAX_PROMPT else None

    def answer(self, play: Play, token_ids: Sequence[int]) -> None:
        """Note what the assistant said."""
        text = self.tokenizer.decode(list(token_ids))
        play.said.append({"role": "assistant", "content": text})


def play_all(
    player: Player, count: int, streams: int, answer: Callable[[list[list[int]]], list[list[int]]]
) -> list[list[int]]:
    """Play `count` conversations, `streams` at once and in step; all answers in order.

    answer: token ids of the greedy answers to a list of prompts.
    """
    waiting = player.plays(count)
    running: list[Play] = []
    answers: list[list[int]] = []
    while waiting or running:
        while waiting and len(running) < streams:
            running.append(waiting.pop(0))
        prompts = [(play, player.advance(play)) for play in running]
        asked = [(play, prompt) for play, prompt in prompts if prompt is not None]
        running = [play for play, _ in asked]
        if not asked:
            continue
        for (play, _), tokens in zip(asked, answer([p for _, p in asked]), strict=True):
            player.answer(play, tokens)
            answers.append(tokens)
    return answers


def _template(model: Path) -> Render:
    from server.chat_template import ChatTemplate  # which bare machines lack the packages of

    template = ChatTemplate.load(model)
    assert template is not None, f"{model} has no chat template"
    return template.render


def _turns(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    turns: list[list[dict[str, Any]]] = [[]]
    for message in messages:
        if message["role"] == "assistant":
            turns.append([])
        else:
            turns[-1].append(message)
    return [turn for turn in turns if turn]
