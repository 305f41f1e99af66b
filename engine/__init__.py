"""Requests in, tokens out. The public face, free of torch; the rest is the engine's own affair."""

from typing import TYPE_CHECKING, Any

from engine.config import EngineConfig, ModelInfo
from engine.request import FinishReason, Request, RequestOutput, SamplingParams

if TYPE_CHECKING:
    from engine.client import EngineClient

__all__ = [
    "EngineClient",
    "EngineConfig",
    "FinishReason",
    "ModelInfo",
    "Request",
    "RequestOutput",
    "SamplingParams",
]


def __getattr__(name: str) -> Any:
    """The client when it is asked for: an engine in one's own process needs no wire format."""
    if name != "EngineClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engine.client import EngineClient

    return EngineClient
