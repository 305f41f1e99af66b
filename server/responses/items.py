"""An answer's pieces as output items, and as the events that tell of them.

A response that is streamed and one that is not go through the same items: what the events add up
to is what the whole response has.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from server.pieces import CallArguments, CallEnded, CallStarted, Piece, Reasoning, Text
from server.sse import Event

Logprobs = list[dict[str, Any]]


class OutputItems:
    """The items of one answer as they grow.

    whole: those that have ended.
    """

    def __init__(self) -> None:
        self.whole: list[dict[str, Any]] = []
        self._open: _Item | None = None
        self._entries: Logprobs = []

    def take(self, pieces: Iterable[Piece], entries: Logprobs) -> list[Event]:
        """The events of one output. entries: its tokens' log-probabilities, where asked for."""
        events: list[Event] = []
        self._entries += entries
        for piece in pieces:
            match piece:
                case Text(text):
                    if not isinstance(self._open, _Message):
                        events += self._begin(_Message)
                        self._entries = list(entries)
                    events += self._say(text)
                case Reasoning(text):
                    if not isinstance(self._open, _Reasoning):
                        events += self._begin(_Reasoning)
                    events += self._say(text)
                case CallStarted(_, call_id, name):
                    events += self._begin(partial(_Call, call_id, name))
                case CallArguments(_, text):
                    events += self._say(text)
                case CallEnded(_, complete):
                    events += self._end("completed" if complete else "incomplete")
        return events

    def finish(self, status: str) -> list[Event]:
        """The events of the end. status: of the item that is open: completed or incomplete."""
        events: list[Event] = []
        if self._open is None and not self.whole:
            events += self._begin(_Message)
        if isinstance(self._open, _Message) and self._entries:
            events += self._say("")
        return events + self._end(status)

    def _begin(self, make: Callable[[int], _Item]) -> list[Event]:
        events = self._end("completed")
        self._open = make(len(self.whole))
        return events + self._open.begun()

    def _say(self, text: str) -> list[Event]:
        assert self._open is not None
        if not isinstance(self._open, _Message):
            return [self._open.delta(text)]
        # Of tokens whose text came later than they did, too.
        entries, self._entries = self._entries, []
        return [self._open.say(text, entries)]

    def _end(self, status: str) -> list[Event]:
        if self._open is None:
            return []
        events = self._open.ended(status)
        self.whole.append(self._open.as_dict(status))
        self._open = None
        return events


class _Item(ABC):
    """One item. id: its own. place: its index in the output. text: all of it so far."""

    def __init__(self, prefix: str, place: int) -> None:
        self.id, self.place, self.text = f"{prefix}_{uuid.uuid4().hex}", place, ""

    @abstractmethod
    def as_dict(self, status: str) -> dict[str, Any]:
        """The item itself."""

    def begun(self) -> list[Event]:
        """It begins."""
        return [self._event("output_item.added", item=self.as_dict("in_progress"))]

    @abstractmethod
    def delta(self, text: str) -> Event:
        """More of it."""

    def ended(self, status: str) -> list[Event]:
        """It is over."""
        return [self._event("output_item.done", item=self.as_dict(status))]

    def _event(self, name: str, /, **more: Any) -> Event:
        return {"type": f"response.{name}", "output_index": self.place, **more}


class _Call(_Item):
    def __init__(self, call_id: str, name: str, place: int) -> None:
        super().__init__("fc", place)
        self._call_id, self._name = call_id, name

    def as_dict(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": self.text,
        }

    def delta(self, text: str) -> Event:
        self.text += text
        return self._event("function_call_arguments.delta", item_id=self.id, delta=text)

    def ended(self, status: str) -> list[Event]:
        own = {"item_id": self.id, "name": self._name, "arguments": self.text}
        return [self._event("function_call_arguments.done", **own), *super().ended(status)]


class _Written(_Item):
    """An item of one text. KIND: of its text."""

    KIND = ""

    def part(self) -> dict[str, Any]:
        """Its text as a part of its content."""
        return {"type": self.KIND, "text": self.text}

    def begun(self) -> list[Event]:
        return [*super().begun(), self._of_part("content_part.added", part=self.part())]

    def delta(self, text: str) -> Event:
        self.text += text
        return self._of_part(f"{self.KIND}.delta", delta=text)

    def ended(self, status: str) -> list[Event]:
        return [
            self._of_part(f"{self.KIND}.done", text=self.text),
            self._of_part("content_part.done", part=self.part()),
            *super().ended(status),
        ]

    def _of_part(self, name: str, /, **more: Any) -> Event:
        return self._event(name, item_id=self.id, content_index=0, **more)


class _Reasoning(_Written):
    KIND = "reasoning_text"

    def __init__(self, place: int) -> None:
        super().__init__("rs", place)

    def as_dict(self, status: str) -> dict[str, Any]:
        content = [self.part()] if self.text else []
        return {
            "id": self.id,
            "type": "reasoning",
            "status": status,
            "summary": [],
            "content": content,
        }


class _Message(_Written):
    KIND = "output_text"

    def __init__(self, place: int) -> None:
        super().__init__("msg", place)
        self._logprobs: Logprobs = []

    def as_dict(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self.part()]
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def part(self) -> dict[str, Any]:
        return {**super().part(), "annotations": [], "logprobs": self._logprobs}

    def say(self, text: str, entries: Logprobs) -> Event:
        """More of it, with its tokens' log-probabilities."""
        self._logprobs = self._logprobs + entries
        return {**self.delta(text), "logprobs": entries}

    def ended(self, status: str) -> list[Event]:
        done, *others = super().ended(status)
        return [{**done, "logprobs": self._logprobs}, *others]
