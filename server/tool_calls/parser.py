"""One answer's text to text and calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from server.pieces import Piece
from server.tool_calls.scan import END, Scan, Scanner
from server.tool_calls.writer import PieceWriter

Functions = Mapping[str, Any]
"""Names of the request's functions -> the JSON schemas of their arguments."""

Read = Callable[[Scanner, PieceWriter, Functions], Scan[None]]
"""How a family is read: from the first character until the current one is END."""


class ToolCallParser:
    """Splits one answer into text and calls, wherever its text is cut into pieces.

    What may turn out to be part of a call is held back until it is certain, at most until the
    answer ends. Nothing of an answer is lost but the markers of calls and white space around them.

    read: the family. new_id: makes the ids of calls. functions: of the request.
    parallel: whether calls after the first are found too; otherwise they are dropped.
    """

    def __init__(
        self,
        read: Read,
        new_id: Callable[[], str],
        functions: Functions,
        parallel: bool = True,
    ) -> None:
        self._writer = PieceWriter(new_id, parallel)
        self._reading = self._read(read, functions)
        next(self._reading)

    def feed(self, text: str) -> list[Piece]:
        """What became certain with more text, in order."""
        for char in text:
            self._reading.send(char)
        return self._writer.taken()

    def finish(self) -> list[Piece]:
        """What was held back, now that the answer has ended; nothing may be fed after it."""
        self._reading.send(END)
        self._writer.finish()
        return self._writer.taken()

    def _read(self, read: Read, functions: Functions) -> Scan[None]:
        scanner = Scanner()
        yield from scanner.skip()  # what is current before the first character is nothing
        yield from read(scanner, self._writer, functions)
        yield  # where the last END is sent to
