"""Requests in, tokens out. The public face, free of torch; the rest is the engine's own affair."""

from engine.client import EngineClient
from engine.config import EngineConfig, ModelInfo
from engine.request import FinishReason, Request, RequestOutput, SamplingParams

__all__ = [
    "EngineClient",
    "EngineConfig",
    "FinishReason",
    "ModelInfo",
    "Request",
    "RequestOutput",
    "SamplingParams",
]
