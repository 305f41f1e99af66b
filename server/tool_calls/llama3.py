"""Llama 3's form: {"name": ..., "parameters": {...}}, bare or behind <|python_tag|>."""

from __future__ import annotations

from collections.abc import Collection

from server.tool_calls.bare import calls_here
from server.tool_calls.scan import END, Scan, Scanner
from server.tool_calls.text import text_until
from server.tool_calls.writer import PieceWriter

MARKER = "<|python_tag|>"


def read(scanner: Scanner, writer: PieceWriter, names: Collection[str]) -> Scan[None]:
    """Calls at the beginning of the answer, and behind each marker; several split by `;`."""
    yield from calls_here(scanner, writer, names)
    while (yield from text_until(scanner, writer, MARKER)) != END:
        yield from calls_here(scanner, writer, None, MARKER)
