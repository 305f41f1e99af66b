"""What the server asks of an engine: `engine.client.EngineClient`, or the tests' stub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from tokenizers import Tokenizer

from engine.config import ModelInfo
from engine.request import Request, RequestOutput
from engine.stats import EngineStats


class Client(Protocol):
    """An engine as the server sees it.

    info, tokenizer: there after `start`; `info.adapters` is what is loaded now.
    stats: the latest counters. is_ready: whether new requests are served. num_restarts: engines
    that were started after the first. failed: set once there will be no engine any more.
    heartbeat_age: seconds since its last sign of life.
    """

    info: ModelInfo
    tokenizer: Tokenizer
    stats: EngineStats
    is_ready: bool
    num_restarts: int
    failed: asyncio.Event

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the engine's last sign of life."""
        ...

    async def start(self) -> None:
        """Start the engine and wait until it is ready; raises EngineError where it cannot be."""
        ...

    async def stop(self) -> None:
        """End the engine; running requests get EngineStopped."""
        ...

    def check_room(self, count: int) -> None:
        """Raises EngineOverloaded where so many requests more could not all run or wait."""
        ...

    async def load_adapter(self, name: str, folder: str) -> None:
        """Load an adapter; raises AdapterNameTaken, NoFreeSlot, AdapterRefused or EngineDead."""
        ...

    async def unload_adapter(self, name: str) -> None:
        """Let no new request use an adapter; raises UnknownAdapter or EngineDead."""
        ...

    def generate(self, request: Request) -> AsyncIterator[RequestOutput]:
        """An async generator of a request's outputs; closing it early aborts the request.

        Raises RequestError, EngineOverloaded, RequestFailed or EngineDead while it is iterated.
        """
        ...
