"""Mistral's forms: [TOOL_CALLS][{"name": ..., "arguments": {...}}], newer [TOOL_CALLS]name{...}.

The newer form may have [CALL_ID]id and [ARGS] before the arguments.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection

from server.tool_calls.bare import calls_here
from server.tool_calls.object_call import written_arguments
from server.tool_calls.scan import END, NotACall, Scan, Scanner
from server.tool_calls.text import text_until
from server.tool_calls.writer import PieceWriter

CALLS, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_ALPHANUMERIC = string.ascii_letters + string.digits
_NAME = frozenset(_ALPHANUMERIC + "_-.")


def new_id() -> str:
    """Nine letters and digits: Mistral's templates refuse any other id."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


def read(scanner: Scanner, writer: PieceWriter, names: Collection[str]) -> Scan[None]:
    """Calls behind the marker, in either form; what is none there is text, marker and all."""
    while (yield from text_until(scanner, writer, CALLS)) != END:
        scanner.hold(CALLS)
        yield from scanner.space()
        if scanner.char in ("[", "{"):
            yield from calls_here(scanner, writer, None, scanner.held())
            continue
        try:
            yield from _named_call(scanner, writer)
        except NotACall:
            writer.say(scanner.held())


def _named_call(scanner: Scanner, writer: PieceWriter) -> Scan[None]:
    name = yield from _word(scanner)
    yield from scanner.space()
    if scanner.char == "[":
        # Both markers begin alike: what follows the bracket tells which it is.
        yield from scanner.next()
        if scanner.char == CALL_ID[1]:
            yield from scanner.expect(CALL_ID[1:])
            yield from _word(scanner)
            yield from scanner.expect(ARGS)
        else:
            yield from scanner.expect(ARGS[1:])
        yield from scanner.space()
    if scanner.char != "{":
        raise NotACall
    writer.start(name)
    scanner.hold()
    yield from written_arguments(scanner, writer)
    writer.end(complete=True)


def _word(scanner: Scanner) -> Scan[str]:
    word: list[str] = []
    while scanner.char in _NAME:
        word.append(scanner.char)
        yield from scanner.next()
    return "".join(word)
