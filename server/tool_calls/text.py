"""The text around calls."""

from __future__ import annotations

from server.tool_calls.scan import END, Scan, Scanner
from server.tool_calls.writer import PieceWriter


def text_until(scanner: Scanner, writer: PieceWriter, *markers: str) -> Scan[str]:
    """Write text up to one of `markers`, which is consumed and returned; END at the end.

    No marker may begin with another one. What may be the beginning of one is held back.
    """
    seen = ""
    while scanner.char != END:
        seen += scanner.char
        while seen and not any(marker.startswith(seen) for marker in markers):
            writer.say(seen[0])
            seen = seen[1:]
        yield from scanner.skip()
        if seen in markers:
            return seen
    writer.say(seen)
    return END
