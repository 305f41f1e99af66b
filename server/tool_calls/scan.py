"""Reading an answer a character at a time.

What reads is a generator that is sent one character after the other, so that a format is written
down as it is read: `yield from` until it is through. Nothing knows where the text was cut into
pieces, so that nothing can depend on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import TypeVar

from server.tool_calls.json_value import JsonValue

T = TypeVar("T")
Scan = Generator[None, str, T]

END = ""
"""Stands behind the last character."""


class NotACall(Exception):
    """What is being read is no call after all, and is text."""


class Scanner:
    """The characters of one answer. char: the current one, not consumed yet."""

    def __init__(self) -> None:
        self.char = END
        self._held: list[str] = []

    def hold(self, text: str = "") -> None:
        """Keep what is consumed from now on, with `text` before it, in case it is no call."""
        self._held = [text]

    def held(self) -> str:
        """What was consumed since `hold`; it is kept no longer."""
        text = "".join(self._held)
        self._held = []
        return text

    def next(self) -> Scan[None]:
        """Consume the current character, into what is held."""
        self._held.append(self.char)
        self.char = yield

    def skip(self) -> Scan[None]:
        """Consume the current character for good."""
        self.char = yield

    def space(self) -> Scan[None]:
        """Consume white space."""
        while self.char.isspace():
            yield from self.next()

    def expect(self, text: str) -> Scan[None]:
        """Consume `text`; raises NotACall where something else stands."""
        for char in text:
            if self.char != char:
                raise NotACall
            yield from self.next()

    def value(self) -> Scan[str]:
        """Consume a JSON value, and return its text. Raises NotACall where there is none."""
        text: list[str] = []
        value = JsonValue()
        while value.take(self.char):
            text.append(self.char)
            yield from self.next()
        if not value.complete:
            raise NotACall
        return "".join(text)

    def string(self) -> Scan[str]:
        """Consume a JSON string, and return what it says. Raises NotACall where there is none."""
        if self.char != '"':
            raise NotACall
        text: str = json.loads((yield from self.value()))
        return text

    def pass_on(self, taken: Callable[[str], None]) -> Scan[bool]:
        """Consume a JSON value, handing each character on at once; whether it was a whole one."""
        value = JsonValue()
        while value.take(self.char):
            taken(self.char)
            self.char = yield
        return value.complete
