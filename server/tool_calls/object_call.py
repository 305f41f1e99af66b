"""A call written as one JSON object, `{"name": ..., "arguments": {...}}`.

A call begins in the answer as soon as its name is known and its arguments open; from there on they
are handed on character by character. Arguments written before the name are held until it is known.
"""

from __future__ import annotations

from collections.abc import Collection

from server.tool_calls.json_value import is_value
from server.tool_calls.scan import NotACall, Scan, Scanner
from server.tool_calls.writer import PieceWriter

_ARGUMENTS = ("arguments", "parameters")
_KEYS = ("name", "type", "id", *_ARGUMENTS)


def object_call(
    scanner: Scanner, writer: PieceWriter, known: Collection[str] | None = None
) -> Scan[None]:
    """Read the call that begins at the current character.

    known: names a call may have, where no marker says that this is one; then it must have
        arguments too, and no keys but a call's. None takes any name.

    Raises NotACall as long as nothing of it was written. Where JSON breaks later, what was written
    stays a call, and the rest is text.
    """
    num_calls = writer.num_calls
    try:
        yield from _members(scanner, writer, known)
    except NotACall:
        if writer.num_calls == num_calls:
            raise
        if writer.in_call:  # it was its arguments that were whole
            writer.end(complete=True)
        writer.say(scanner.held())
    else:
        writer.end(complete=True)
        yield from scanner.skip()


def _members(scanner: Scanner, writer: PieceWriter, known: Collection[str] | None) -> Scan[None]:
    """Up to the closing brace, which stays the current character."""
    name = arguments = None
    yield from scanner.expect("{")
    while True:
        yield from scanner.space()
        key = yield from scanner.string()
        if known is not None and key not in _KEYS:
            raise NotACall
        yield from scanner.space()
        yield from scanner.expect(":")
        yield from scanner.space()
        if key == "name" and name is None:
            name = yield from scanner.string()
            if known is not None and name not in known:
                raise NotACall
        elif key in _ARGUMENTS and arguments is None:
            arguments = yield from _arguments(scanner, writer, name)
        elif key == "name" or key in _ARGUMENTS:
            raise NotACall
        else:
            yield from scanner.value()
        if not writer.in_call and name is not None and arguments is not None:
            _start(scanner, writer, name)
            writer.arguments(arguments)
        yield from scanner.space()
        if scanner.char == "}":
            break
        yield from scanner.expect(",")
    if writer.in_call:
        return
    if name is None or known is not None:
        raise NotACall
    _start(scanner, writer, name)
    writer.arguments("{}")


def _arguments(scanner: Scanner, writer: PieceWriter, name: str | None) -> Scan[str]:
    """Arguments, an object or one written as text; those of a known name are written at once."""
    if scanner.char == '"':
        text = (yield from scanner.string()).strip() or "{}"
        if not (text.startswith("{") and is_value(text)):
            raise NotACall
        return text
    if scanner.char != "{":
        raise NotACall
    if name is None:
        return (yield from scanner.value())
    _start(scanner, writer, name)
    yield from written_arguments(scanner, writer)
    return ""


def _start(scanner: Scanner, writer: PieceWriter, name: str) -> None:
    writer.start(name)
    scanner.hold()


def written_arguments(scanner: Scanner, writer: PieceWriter) -> Scan[None]:
    """Hand the open call's arguments on; raises NotACall where they break, which ends the call."""
    if not (yield from scanner.pass_on(writer.arguments)):
        writer.end(complete=False)
        raise NotACall
