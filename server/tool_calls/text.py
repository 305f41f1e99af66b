"""The text around calls."""

from __future__ import annotations

from collections.abc import Callable

from server.tool_calls.scan import END, Scan, Scanner
from server.tool_calls.writer import PieceWriter


def text_until(scanner: Scanner, writer: PieceWriter, *markers: str) -> Scan[str]:
    """Write text up to one of `markers`; as `pass_until`."""
    return (yield from pass_until(scanner, writer.say, *markers))


def pass_until(scanner: Scanner, taken: Callable[[str], None], *markers: str) -> Scan[str]:
    """Hand on what stands before one of `markers`, which is consumed and returned; END at the end.

    No marker may begin with another one. What may be the beginning of one is held back.
    """
    beginnings = {marker[:length] for marker in markers for length in range(1, len(marker) + 1)}
    seen = ""
    while scanner.char != END:
        seen += scanner.char
        while seen and seen not in beginnings:
            taken(seen[0])
            seen = seen[1:]
        scanner.char = yield
        if seen in markers:
            return seen
    taken(seen)
    return END
