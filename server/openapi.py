"""What the OpenAPI document says of answers that are not worded by FastAPI."""

from __future__ import annotations

from typing import Any, TypeAlias

from pydantic import BaseModel

from server.schemas.answers import AnthropicErrorAnswer, ErrorAnswer
from server.sse import CHUNKS, Event, Framing

Responses: TypeAlias = dict[int | str, dict[str, Any]]

ERRORS: Responses = {"default": {"model": ErrorAnswer, "description": "An error."}}
ANTHROPIC_ERRORS: Responses = {
    "default": {"model": AnthropicErrorAnswer, "description": "An error."}
}


def answered_by(model: type[BaseModel], event: Event, framing: Framing = CHUNKS) -> Responses:
    """An answer as a whole, or as events such as `event`."""
    example = (framing.frame(event) + framing.end).decode()
    events = {"schema": {"type": "string"}, "example": example}
    return {
        200: {
            "model": model,
            "content": {"text/event-stream": events},
            "description": "The answer, or its parts as server-sent events where `stream` is set.",
        }
    }
