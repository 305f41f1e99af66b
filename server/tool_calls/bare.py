"""Calls without markers: an answer that is one JSON object or an array of them.

Without a marker an answer may be JSON for its own sake. So it is a call only where it begins with
one, has a call's keys alone, arguments, and the name of a function that the request has.
"""

from __future__ import annotations

from collections.abc import Collection

from server.tool_calls.object_call import object_call
from server.tool_calls.scan import NotACall, Scan, Scanner
from server.tool_calls.text import text_until
from server.tool_calls.writer import PieceWriter

_SEPARATORS = (";", ",")


def read(scanner: Scanner, writer: PieceWriter, names: Collection[str]) -> Scan[None]:
    """Calls at the beginning of the answer; all else is text."""
    yield from calls_here(scanner, writer, names)
    yield from text_until(scanner, writer)


def calls_here(
    scanner: Scanner, writer: PieceWriter, known: Collection[str] | None, marker: str = ""
) -> Scan[None]:
    """Calls from the current character on: an array, or objects one after the other.

    Between objects there may be a semicolon or a comma. What is no call is text.

    known: as for `object_call`. marker: what stood before them, text unless there is a call.
    """
    num_calls = writer.num_calls
    scanner.hold(marker)
    try:
        yield from scanner.space()
        in_array = scanner.char == "["
        if in_array:
            yield from scanner.next()
            yield from scanner.space()
        while scanner.char == "{":
            yield from object_call(scanner, writer, known)
            scanner.hold()
            yield from scanner.space()
            if scanner.char in _SEPARATORS:
                yield from scanner.next()
                yield from scanner.space()
        if in_array and writer.num_calls > num_calls:
            yield from scanner.expect("]")
            return
    except NotACall:
        pass
    writer.say(scanner.held())
