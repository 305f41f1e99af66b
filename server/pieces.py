"""What an answer is made of, in the order in which it becomes certain.

Every endpoint words the same pieces in its own way. The text of neighbouring pieces of one kind
belongs together; where it is divided says nothing. Calls do not interleave: between a CallStarted
and its CallEnded there are only CallArguments of the same call.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Text:
    """Of the answer itself. text: not empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Of what the model wrote to itself before it answers. text: not empty."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A tool call begins. index: its number among the answer's calls, from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """Of a call's arguments, which are JSON text as the model wrote it. text: not empty."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call is over.

    complete: whether its arguments are a whole JSON object; they are not where the answer ended
        before them, or where the model went on with something that is no JSON.
    """

    index: int
    complete: bool


Piece = Text | Reasoning | CallStarted | CallArguments | CallEnded


@dataclass(slots=True)
class ToolCall:
    """One call of a function. arguments: JSON text, as far as it came."""

    id: str
    name: str
    arguments: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The call as chat completions word it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(slots=True)
class Gathered:
    """The pieces of one answer put together; equal however they were divided."""

    text: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)

    def add(self, pieces: Iterable[Piece]) -> None:
        """Append what came next."""
        for piece in pieces:
            match piece:
                case Text(text):
                    self.text += text
                case Reasoning(text):
                    self.reasoning += text
                case CallStarted(_, id, name):
                    self.calls.append(ToolCall(id, name))
                case CallArguments(index, text):
                    self.calls[index].arguments += text
                case CallEnded():
                    pass
