"""What a parser of tool calls is."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a function. arguments: JSON text. id: `call_` and 24 hex digits."""

    name: str
    arguments: str
    id: str = field(default_factory=_new_id)

    def as_dict(self) -> dict[str, Any]:
        """The call as it goes over the wire."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class ToolCallParser(Protocol):
    """Splits one answer into text and calls, wherever its text is cut into pieces.

    Text that may turn out to be part of a call is held back until it is certain.
    """

    def feed(self, text: str) -> Sequence[str | ToolCall]:
        """What became certain with more text, in order."""
        ...

    def finish(self) -> Sequence[str | ToolCall]:
        """What was held back, now that the answer has ended."""
        ...
