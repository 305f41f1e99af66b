"""An answer's pieces as content blocks, and as the events that tell of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json

from server.pieces import CallArguments, CallEnded, CallStarted, Piece, Reasoning, Text
from server.sse import Event

_FIELD = {"text": "text", "thinking": "thinking", "tool_use": "partial_json"}
_DELTA = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}


class Blocks:
    """The content of one answer as it grows.

    whole: the blocks that have ended.
    """

    def __init__(self) -> None:
        self.whole: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._said = ""

    def take(self, pieces: Iterable[Piece]) -> list[Event]:
        """The events of one output."""
        events: list[Event] = []
        for piece in pieces:
            match piece:
                case Text(text):
                    events += self._go_on_with({"type": "text", "text": ""})
                    events += self._say(text)
                case Reasoning(text):
                    events += self._go_on_with(
                        {"type": "thinking", "thinking": "", "signature": ""}
                    )
                    events += self._say(text)
                case CallStarted(_, id, name):
                    events += self.end()
                    events += self._begin({"type": "tool_use", "id": id, "name": name, "input": {}})
                case CallArguments(_, text):
                    events += self._say(text)
                case CallEnded():
                    events += self.end()
        return events

    def end(self) -> list[Event]:
        """The events of the end of the block that is open."""
        if self._open is None:
            return []
        block, self._open = self._open, None
        kind = block["type"]
        said = _object(self._said) if kind == "tool_use" else self._said
        field = "input" if kind == "tool_use" else kind
        self.whole.append({**block, field: said})
        return [{"type": "content_block_stop", "index": len(self.whole) - 1}]

    def _go_on_with(self, block: dict[str, Any]) -> list[Event]:
        if self._open is not None and self._open["type"] == block["type"]:
            return []
        return self.end() + self._begin(block)

    def _begin(self, block: dict[str, Any]) -> list[Event]:
        self._open, self._said = block, ""
        index = len(self.whole)
        return [{"type": "content_block_start", "index": index, "content_block": block}]

    def _say(self, text: str) -> list[Event]:
        assert self._open is not None
        self._said += text
        kind = self._open["type"]
        delta = {"type": _DELTA[kind], _FIELD[kind]: text}
        return [{"type": "content_block_delta", "index": len(self.whole), "delta": delta}]


def _object(text: str) -> dict[str, Any]:
    """Arguments as far as they came: an answer may have ended within them."""
    try:
        value = from_json(text or "{}", allow_partial=True)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
