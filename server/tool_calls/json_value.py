"""A JSON value, checked as it comes."""

from __future__ import annotations

from collections.abc import Callable

_SPACE = " \t\n\r"
_CLOSING = {"{": "}", "[": "]"}
_LITERALS = {"t": "rue", "f": "alse", "n": "ull"}
_ESCAPES = '"\\/bfnrt'
_HEX = "0123456789abcdefABCDEF"

# What a number may go on with, by what it has so far.
_DIGITS = "0123456789"
_NUMBER: dict[str, dict[str, str]] = {
    "start": {"-": "minus", "0": "zero"} | dict.fromkeys("123456789", "integer"),
    "minus": {"0": "zero"} | dict.fromkeys("123456789", "integer"),
    "zero": {".": "point", "e": "e", "E": "e"},
    "integer": {".": "point", "e": "e", "E": "e"} | dict.fromkeys(_DIGITS, "integer"),
    "point": dict.fromkeys(_DIGITS, "fraction"),
    "fraction": {"e": "e", "E": "e"} | dict.fromkeys(_DIGITS, "fraction"),
    "e": {"+": "sign", "-": "sign"} | dict.fromkeys(_DIGITS, "exponent"),
    "sign": dict.fromkeys(_DIGITS, "exponent"),
    "exponent": dict.fromkeys(_DIGITS, "exponent"),
}
_WHOLE_NUMBERS = ("zero", "integer", "fraction", "exponent")


class JsonValue:
    """One value of RFC 8259: takes characters as long as they can continue it.

    Depth costs a list's entry, no recursion.
    """

    def __init__(self) -> None:
        self._open: list[str] = []
        self._step: Callable[[str], bool] = self._value
        self._number = ""
        self._left = ""
        self._is_key = False

    def take(self, char: str) -> bool:
        """Whether `char` continues the value; one that does not is not part of it."""
        return bool(char) and self._step(char)

    @property
    def complete(self) -> bool:
        """Whether what was taken is a whole value. A number may go on nevertheless."""
        at_end = self._step == self._behind or (
            self._step == self._in_number and self._number in _WHOLE_NUMBERS
        )
        return at_end and not self._open

    def _value(self, char: str) -> bool:
        if char == '"':
            self._step = self._in_string
        elif char in _CLOSING:
            self._open.append(char)
            self._step = self._first
        elif char in _LITERALS:
            self._left, self._step = _LITERALS[char], self._in_literal
        elif char in _NUMBER["start"]:
            self._number, self._step = _NUMBER["start"][char], self._in_number
        else:
            return bool(self._open) and char in _SPACE
        return True

    def _first(self, char: str) -> bool:
        """What follows an opening bracket."""
        if char in _SPACE:
            return True
        if char == _CLOSING[self._open[-1]]:
            return self._close()
        return self._key(char) if self._open[-1] == "{" else self._value(char)

    def _key(self, char: str) -> bool:
        if char == '"':
            self._is_key, self._step = True, self._in_string
            return True
        return char in _SPACE

    def _colon(self, char: str) -> bool:
        if char == ":":
            self._step = self._value
            return True
        return char in _SPACE

    def _behind(self, char: str) -> bool:
        """What follows a value."""
        if not self._open:
            return False
        if char == ",":
            self._step = self._key if self._open[-1] == "{" else self._value
            return True
        return self._close() if char == _CLOSING[self._open[-1]] else char in _SPACE

    def _close(self) -> bool:
        self._open.pop()
        self._step = self._behind
        return True

    def _in_string(self, char: str) -> bool:
        if char == '"':
            self._step, self._is_key = self._colon if self._is_key else self._behind, False
        elif char == "\\":
            self._step = self._in_escape
        return char >= " "

    def _in_escape(self, char: str) -> bool:
        if char == "u":
            self._left, self._step = "0000", self._in_code
            return True
        self._step = self._in_string
        return char in _ESCAPES

    def _in_code(self, char: str) -> bool:
        self._left = self._left[1:]
        if not self._left:
            self._step = self._in_string
        return char in _HEX

    def _in_literal(self, char: str) -> bool:
        expected, self._left = self._left[0], self._left[1:]
        if not self._left:
            self._step = self._behind
        return char == expected

    def _in_number(self, char: str) -> bool:
        longer = _NUMBER[self._number].get(char)
        if longer is not None:
            self._number = longer
            return True
        if self._number not in _WHOLE_NUMBERS:
            return False
        self._step = self._behind
        return self._behind(char)


def is_value(text: str) -> bool:
    """Whether a text is one JSON value."""
    value = JsonValue()
    return all(map(value.take, text)) and value.complete
