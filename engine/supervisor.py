"""Keeps an engine running: starts it, and starts a fresh one when it dies or hangs."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from dataclasses import replace

from engine.config import EngineConfig, ModelInfo
from engine.connection import Connection
from engine.errors import EngineDead, EngineError
from engine.messages import Failed, Message, Ready, Start, raised

HANG_SECONDS = 120.0
WATCH_SECONDS = 1.0
RESTART_SECONDS = 1.0

log = logging.getLogger("bita.engine")


class Supervisor(ABC):
    """One engine at a time, and what it says.

    info: what the engine said when it became ready, and since of its adapters.
    is_ready: whether there is an engine to ask. num_restarts: engines started after the first.
    """

    info: ModelInfo

    def __init__(self, config: EngineConfig, in_process: bool = False) -> None:
        self.config, self.in_process = config, in_process
        self.is_ready = False
        self.num_restarts = 0
        self._last_beat = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    @abstractmethod
    def _received(self, message: Message) -> None:
        """Take what the engine says; Ready aside."""

    @abstractmethod
    def _lost(self, why: str) -> None:
        """Tell all who wait for this engine that it says no more, by an EngineDead each."""

    async def start(self) -> None:
        """Start the engine and wait until it is ready.

        Raises UnsupportedModel, EngineError or EngineDead where it does not become so.
        """
        await self._launch(Start(self.config))
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        """End the engine; running requests get EngineDead."""
        self.is_ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lost("the engine was stopped")
        await self._engine.close()

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the engine's last sign of life."""
        return time.monotonic() - self._last_beat

    async def _launch(self, start: Start) -> None:
        """A fresh engine, and its Ready."""
        self._engine = await Connection.open(self.in_process)
        await self._engine.send(start)
        answer = await self._engine.receive()
        if not isinstance(answer, Ready):
            await self._engine.close()
            if isinstance(answer, Failed):
                raise raised(answer.kind, answer.message)
            raise EngineDead("the engine process ended while it was loading")
        self.info = answer.info
        self._last_beat = time.monotonic()
        self.is_ready = True

    async def _run(self) -> None:
        """Hand the engine's messages on; start a fresh engine when it goes."""
        while True:
            while (message := await self._engine.receive()) is not None:
                self._last_beat = time.monotonic()
                self._received(message)
            self.is_ready = False
            log.error("the engine process is gone; starting a fresh one")
            self._lost("the engine process ended; the request may be sent again")
            await self._engine.close()
            await self._restart()

    async def _restart(self) -> None:
        start = Start(replace(self.config, adapters=self.info.adapters), skip_bad_adapters=True)
        while not self.is_ready:
            self.num_restarts += 1
            try:
                await self._launch(start)
            except (EngineError, OSError):
                log.exception("the engine did not start; trying again")
                await asyncio.sleep(RESTART_SECONDS)

    async def _watch(self) -> None:
        """Kill an engine that is alive but silent; `_run` then starts a fresh one."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self.is_ready and self.heartbeat_age > HANG_SECONDS:
                log.error("no sign of life for %.0f s: killing the engine", self.heartbeat_age)
                self._engine.kill()
