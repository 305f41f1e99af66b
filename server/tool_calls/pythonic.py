"""Llama 4's form, also of some Llama 3.2: [name(key="value"), ...], as Python would write it.

Arguments are put into JSON token by token, not by Python's own parser: that one can be made to
exhaust the stack. A call is written once its closing parenthesis has come.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from server.tool_calls.json_value import is_value
from server.tool_calls.scan import END, NotACall, Scan, Scanner
from server.tool_calls.text import text_until
from server.tool_calls.writer import PieceWriter

OPEN, CLOSE = "<|python_start|>", "<|python_end|>"
_LITERALS = {"True": "true", "False": "false", "None": "null"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def read(scanner: Scanner, writer: PieceWriter, names: Collection[str]) -> Scan[None]:
    """Calls of known functions at the beginning of the answer, and any behind the marker."""
    yield from _calls_here(scanner, writer, names)
    while (marker := (yield from text_until(scanner, writer, OPEN, CLOSE))) != END:
        if marker == OPEN:
            yield from _calls_here(scanner, writer, None, OPEN)
        elif not writer.after_call:
            writer.say(CLOSE)


def _calls_here(
    scanner: Scanner, writer: PieceWriter, known: Collection[str] | None, marker: str = ""
) -> Scan[None]:
    scanner.hold(marker)
    try:
        yield from scanner.space()
        yield from scanner.expect("[")
        while True:
            yield from scanner.space()
            name = yield from _word(scanner)
            if known is not None and name not in known:
                raise NotACall
            arguments = yield from _arguments(scanner)
            writer.start(name)
            writer.arguments(arguments)
            writer.end(complete=True)
            scanner.hold()
            yield from scanner.space()
            if scanner.char == "]":
                yield from scanner.skip()
                return
            yield from scanner.expect(",")
    except NotACall:
        writer.say(scanner.held())


def _arguments(scanner: Scanner) -> Scan[str]:
    """`(key=value, ...)` as a JSON object."""
    members: list[str] = []
    yield from scanner.expect("(")
    yield from scanner.space()
    while scanner.char != ")":
        key = yield from _word(scanner)
        yield from scanner.space()
        yield from scanner.expect("=")
        value = yield from _value(scanner)
        members.append(f"{json.dumps(key, ensure_ascii=False)}: {value}")
        if scanner.char == ",":
            yield from scanner.next()
        yield from scanner.space()
    yield from scanner.next()
    return "{" + ", ".join(members) + "}"


def _value(scanner: Scanner) -> Scan[str]:
    """A literal in JSON, up to the comma or parenthesis behind it."""
    tokens: list[str] = []
    closing: list[str] = []
    while closing or scanner.char not in (",", ")", END):
        yield from scanner.space()
        char = scanner.char
        if char in _CLOSING:
            closing.append(_CLOSING[char])
            tokens.append("{" if char == "{" else "[")
            yield from scanner.next()
        elif closing and char == closing[-1]:
            if tokens[-1] == ", ":  # Python allows one more comma
                tokens.pop()
            tokens.append("}" if closing.pop() == "}" else "]")
            yield from scanner.next()
        elif char in (",", ":"):
            tokens.append(f"{char} ")
            yield from scanner.next()
        elif char in ('"', "'"):
            tokens.append((yield from _string(scanner)))
        else:
            word = yield from _word(scanner)
            tokens.append(_LITERALS.get(word, word))
        yield from scanner.space()
    if not is_value(" ".join(tokens)):
        raise NotACall
    return "".join(tokens)


def _string(scanner: Scanner) -> Scan[str]:
    """A string in quotes of either kind, in JSON."""
    quote, text, escaped = scanner.char, [""], False
    yield from scanner.next()
    while scanner.char not in ("\n", END) and (escaped or scanner.char != quote):
        escaped = scanner.char == "\\" and not escaped
        text.append(scanner.char)
        yield from scanner.next()
    yield from scanner.expect(quote)
    return json.dumps(_ESCAPE.sub(_unescaped, "".join(text)), ensure_ascii=False)


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    return _ESCAPED.get(escape, escape if escape in "\\'\"" else match[0])


def _word(scanner: Scanner) -> Scan[str]:
    """A name or a number."""
    word: list[str] = []
    while scanner.char.isalnum() or scanner.char in ("_", ".", "+", "-"):
        word.append(scanner.char)
        yield from scanner.next()
    if not word:
        raise NotACall
    return "".join(word)
