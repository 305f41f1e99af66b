"""Hermes' form, also Qwen's: <tool_call>{"name": ..., "arguments": {...}}</tool_call>."""

from __future__ import annotations

from collections.abc import Collection

from server.tool_calls.object_call import object_call
from server.tool_calls.scan import END, NotACall, Scan, Scanner
from server.tool_calls.text import text_until
from server.tool_calls.writer import PieceWriter

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def read(scanner: Scanner, writer: PieceWriter, names: Collection[str]) -> Scan[None]:
    """Calls behind the opening marker; what is none there is text, marker and all.

    The closing one may be missing.
    """
    while (marker := (yield from text_until(scanner, writer, OPEN, CLOSE))) != END:
        if marker == CLOSE:
            if not writer.after_call:
                writer.say(CLOSE)
            continue
        scanner.hold(OPEN)
        try:
            yield from scanner.space()
            yield from object_call(scanner, writer)
        except NotACall:
            writer.say(scanner.held())
