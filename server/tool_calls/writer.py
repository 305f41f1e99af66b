"""What a parser has found, as pieces of the answer."""

from __future__ import annotations

import re
from collections.abc import Callable

from server.pieces import CallArguments, CallEnded, CallStarted, Piece, Text
from server.tool_calls.scan import NotACall

_MAX_NAME = 256


class PieceWriter:
    """Gathers pieces. White space before and behind a call belongs to it, and is dropped.

    new_id: makes the ids of calls. parallel: whether calls after the first are written too.
    num_calls: calls begun. in_call: whether one is open.
    after_call: whether nothing was said since the last one.
    """

    def __init__(self, new_id: Callable[[], str], parallel: bool) -> None:
        self._new_id, self._parallel = new_id, parallel
        self._pieces: list[Piece] = []
        self._run: list[str] = []  # characters of a piece that may go on
        self._space: list[str] = []
        self.num_calls = 0
        self.in_call = self.after_call = False

    def say(self, text: str) -> None:
        """Text of the answer; white space at its end waits for what follows."""
        for char in text:
            if char.isspace():
                self._space.append(char)
                continue
            if not self.after_call:
                self._run += self._space
            self._space.clear()
            self._run.append(char)
            self.after_call = False

    def start(self, name: str) -> None:
        """A call begins. Raises NotACall where `name` cannot be one."""
        if not (name.isprintable() and re.search(r"\S", name) and len(name) <= _MAX_NAME):
            raise NotACall
        self._flush()
        self._space.clear()
        self.in_call = self.after_call = True
        self.num_calls += 1
        if self._heard:
            self._pieces.append(CallStarted(self._index, self._new_id(), name))

    def arguments(self, text: str) -> None:
        """More of the open call's arguments."""
        if self._heard:
            self._run.append(text)

    def end(self, complete: bool) -> None:
        """The open call is over."""
        self._flush()
        if self._heard:
            self._pieces.append(CallEnded(self._index, complete))
        self.in_call = False

    def finish(self) -> None:
        """The answer is over: white space that waited was its end."""
        if not self.after_call:
            self._run += self._space
        self._space.clear()

    def taken(self) -> list[Piece]:
        """The pieces since this was last asked."""
        self._flush()
        pieces, self._pieces = self._pieces, []
        return pieces

    @property
    def _index(self) -> int:
        return self.num_calls - 1

    @property
    def _heard(self) -> bool:
        return self._parallel or self.num_calls == 1

    def _flush(self) -> None:
        text = "".join(self._run)
        self._run.clear()
        if text:
            piece = CallArguments(self._index, text) if self.in_call else Text(text)
            self._pieces.append(piece)
