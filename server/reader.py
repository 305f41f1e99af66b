"""An answer's text to pieces: reasoning first, then text and calls."""

from __future__ import annotations

from collections.abc import Sequence

from server.pieces import Piece, Text
from server.reasoning import ReasoningSplitter
from server.tool_calls.parser import ToolCallParser


class AnswerReader:
    """Reads one answer; the pieces put together do not depend on how its text is cut.

    reasoning, calls: None does not look for them.
    """

    def __init__(
        self, reasoning: ReasoningSplitter | None = None, calls: ToolCallParser | None = None
    ) -> None:
        self._reasoning, self._calls = reasoning, calls

    def count(self, token_ids: Sequence[int]) -> None:
        """Count further tokens of the answer."""
        if self._reasoning is not None:
            self._reasoning.count(token_ids)

    @property
    def num_reasoning_tokens(self) -> int | None:
        """Of an answer that has ended; None where that is not known exactly."""
        return self._reasoning.num_tokens if self._reasoning is not None else None

    def feed(self, text: str) -> list[Piece]:
        """What became certain with more text, in order."""
        if self._reasoning is not None:
            return self._find_calls(self._reasoning.feed(text))
        return self._find_calls([Text(text)] if text else [])

    def finish(self) -> list[Piece]:
        """What was held back, now that the answer has ended."""
        pieces = self._find_calls(self._reasoning.finish() if self._reasoning is not None else [])
        return pieces + (self._calls.finish() if self._calls is not None else [])

    def _find_calls(self, pieces: list[Piece]) -> list[Piece]:
        if self._calls is None:
            return pieces
        found: list[Piece] = []
        for piece in pieces:
            found += self._calls.feed(piece.text) if isinstance(piece, Text) else [piece]
        return found
