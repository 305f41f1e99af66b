"""Conversations played turn by turn: what users say is given, what the assistant says is measured.

The shipped set is a part of the Schema-Guided Dialogues' development split (CC BY-SA 4.0,
google-research-datasets/dstc8-schema-guided-dialogue), which no training here ever saw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import Tokenizer

from adapters.tuning.prompts import Conversation, load
from benchmarks.sessions import Call, Session, Single, user_name

DATA = Path(__file__).parent / "data" / "sgd-dev.jsonl"
MAX_PROMPT = 1600
MAX_TOKENS = 128

Messages: TypeAlias = list[dict[str, Any]]
Render: TypeAlias = Callable[[Messages, Messages | None], str]


class Renderer:
    """Conversations as prompts of one model folder."""

    def __init__(self, model: Path, render: Render | None = None) -> None:
        """render: turns messages and tools into the prompt; None takes the server's way."""
        self.render = render or _template(model)
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def call(self, prompt: str, max_tokens: int = MAX_TOKENS, **more: Any) -> Call:
        """A call for a prompt that is text."""
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        return Call(prompt, list(ids), max_tokens, **more)


def _template(model: Path) -> Render:
    from server.chat_template import ChatTemplate  # which bare machines lack the packages of

    template = ChatTemplate.load(model)
    assert template is not None, f"{model} has no chat template"
    return template.render


class Played:
    """A conversation on its way: what was said, and what others will say next."""

    def __init__(self, renderer: Renderer, turns: list[Messages], tools: Messages | None) -> None:
        self._renderer, self._turns, self._tools = renderer, turns, tools
        self._said: Messages = []

    def advance(self) -> Call | None:
        """Let the others speak; None at the end, or where the prompt has become too long."""
        if not self._turns:
            return None
        self._said += self._turns.pop(0)
        prompt = self._renderer.render(self._said, self._tools)
        messages = None if self._tools else list(self._said)
        call = self._renderer.call(prompt, messages=messages)
        return call if len(call.token_ids) <= MAX_PROMPT else None

    def answer(self, text: str) -> None:
        """As `Session.answer`."""
        self._said.append({"role": "assistant", "content": text})


class Conversations:
    """Whole conversations, or the first `turns` turns of each."""

    def __init__(
        self,
        model: Path,
        data: Path = DATA,
        turns: int | None = None,
        render: Render | None = None,
    ) -> None:
        self.renderer, self.turns = Renderer(model, render), turns
        self.conversations = load(data)

    def session(self, number: int) -> Session:
        """As `Workload.session`."""
        conversation = self.conversations[number % len(self.conversations)]
        turns = _turns(introduced(conversation.messages, number))[: self.turns]
        return Played(self.renderer, turns, conversation.tools)


class ToolCalls:
    """The places of conversations where a function was called, each a session of one call."""

    def __init__(self, model: Path, data: Path = DATA) -> None:
        self.renderer = Renderer(model)
        places = (
            Conversation(c.messages[:i], c.tools)
            for c in load(data)
            for i, message in enumerate(c.messages)
            if c.tools and message.get("tool_calls")
        )
        self.places = [
            place for place in places if len(self._call(place, 0).token_ids) <= MAX_PROMPT
        ]
        assert self.places, f"{data} has no function calls with definitions"

    def session(self, number: int) -> Session:
        """As `Workload.session`."""
        return Single(self._call(self.places[number % len(self.places)], number))

    def _call(self, place: Conversation, number: int) -> Call:
        prompt = self.renderer.render(introduced(place.messages, number), place.tools)
        return self.renderer.call(prompt)


def introduced(messages: Sequence[dict[str, Any]], number: int) -> Messages:
    """A copy in which the user first says a name, a different one in every session."""
    copy = deepcopy(list(messages))
    first = next((m for m in copy if m["role"] == "user"), None)
    if first is not None and isinstance(first.get("content"), str):
        first["content"] = f"Hi, this is {user_name(number)}. {first['content']}"
    for call in (call for message in copy for call in message.get("tool_calls") or ()):
        if not isinstance(call["function"]["arguments"], str):  # the API has text here
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return copy


def _turns(messages: Messages) -> list[Messages]:
    turns: list[Messages] = [[]]
    for message in messages:
        if message["role"] == "assistant":
            turns.append([])
        else:
            turns[-1].append(message)
    return [turn for turn in turns if turn]
