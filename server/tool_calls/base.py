"""What a parser of tool calls is."""

from __future__ import annotations

import uuid
from typing import Protocol

from server.pieces import Piece


def new_id() -> str:
    """`call_` and 24 hex digits."""
    return f"call_{uuid.uuid4().hex[:24]}"


class ToolCallParser(Protocol):
    """Splits one answer into text and calls, wherever its text is cut into pieces.

    Text that may turn out to be part of a call is held back until it is certain.
    """

    def feed(self, text: str) -> list[Piece]:
        """What became certain with more text, in order."""
        ...

    def finish(self) -> list[Piece]:
        """What was held back, now that the answer has ended."""
        ...
