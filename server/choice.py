"""One answer as it grows, before any endpoint words it."""

from __future__ import annotations

from typing import Any

from engine.request import FinishReason, RequestOutput
from server.logprobs import TokenTexts
from server.pieces import Gathered, Piece, Text
from server.tool_calls.base import ToolCallParser


class Choice:
    """Outputs of one engine request to pieces, and what they add up to.

    parser: finds the calls in its text; None takes all of it for text.
    texts: what its tokens read as; None where no log-probabilities are asked for.
    said: all pieces so far. logprobs: chat's entries of all tokens so far.
    """

    def __init__(self, parser: ToolCallParser | None, texts: TokenTexts | None) -> None:
        self._parser, self._texts = parser, texts
        self._finish: FinishReason | None = None
        self.said = Gathered()
        self.logprobs: list[dict[str, Any]] = []
        self.stop_reason: str | int | None = None

    def add(self, output: RequestOutput) -> list[Piece]:
        """The pieces that are certain with one more output and were not before."""
        self._finish, self.stop_reason = output.finish_reason, output.stop_reason
        pieces = self._read(output.text, output.finish_reason is not None)
        self.said.add(pieces)
        if self._texts is not None:
            self.logprobs += self._texts.chat(output.logprobs or [])
        return pieces

    def _read(self, text: str, ended: bool) -> list[Piece]:
        if self._parser is None:
            return [Text(text)] if text else []
        return self._parser.feed(text) + (self._parser.finish() if ended else [])

    @property
    def finish_reason(self) -> str | None:
        """How it ended, as chat completions word it; None while it has not."""
        if self.said.calls and self._finish is FinishReason.STOP:
            return "tool_calls"
        return None if self._finish is None else self._finish.value
