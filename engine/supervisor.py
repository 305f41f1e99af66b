"""Keeps an engine running: starts it, and starts a fresh one when it dies or hangs.

Not for ever: an engine that goes down again and again is given up, so that whoever supervises the
server starts that afresh, perhaps on another machine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace

from engine.config import EngineConfig, ModelInfo
from engine.connection import Connection
from engine.errors import EngineDead, EngineError, EngineStopped
from engine.messages import Failed, Message, Ready, Start, raised

WATCHDOG_TIMEOUT = 120.0
WATCH_SECONDS = 1.0
RESTART_DELAYS = (0.0, 2.0, 10.0)
"""Seconds before an engine's first, second, third restart within `RESTART_WINDOW`, the last one."""
RESTART_WINDOW = 300.0
LOAD_FACTOR = 10.0
"""A fresh engine that takes so many times as long to load as the first one did counts as hung."""

log = logging.getLogger("bita.engine")


class Supervisor(ABC):
    """One engine at a time, and what it says.

    watchdog_timeout: seconds without a sign of life after which an engine counts as hung. It gives
        one with every step, and while it is idle; a step has to be over within this time.
    info: what the engine said when it became ready, and since of its adapters.
    is_ready: whether there is an engine to ask. num_restarts: engines started after the first.
    failed: set once the engine is given up; it does not become ready again.
    """

    info: ModelInfo

    def __init__(
        self,
        config: EngineConfig,
        in_process: bool = False,
        watchdog_timeout: float = WATCHDOG_TIMEOUT,
    ) -> None:
        self.config, self.in_process = config, in_process
        self.watchdog_timeout = watchdog_timeout
        self.is_ready = False
        self.num_restarts = 0
        self.failed = asyncio.Event()
        self._engine: Connection | None = None
        self._last_beat = time.monotonic()
        self._load_seconds = 0.0
        self._restarts: deque[float] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    @abstractmethod
    def _received(self, message: Message) -> None:
        """Take what the engine says; Ready aside."""

    @abstractmethod
    def _lost(self, error: type[EngineDead], why: str) -> None:
        """Tell all who wait for this engine that it says no more, by such an error each."""

    async def start(self) -> None:
        """Start the engine and wait until it is ready.

        Raises UnsupportedModel, EngineError or EngineDead where it does not become so.
        """
        started = time.monotonic()
        await self._launch(Start(self.config))
        self._load_seconds = time.monotonic() - started
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        """End the engine; running requests get EngineStopped."""
        self.is_ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lost(EngineStopped, "the engine was stopped")
        if self._engine is not None:
            await self._engine.close()

    def kill(self) -> None:
        """End the engine at once, as where the server ends without waiting for anything."""
        if self._engine is not None:
            self._engine.kill()

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the engine's last sign of life."""
        return time.monotonic() - self._last_beat

    async def _send(self, message: Message) -> None:
        """Say something to the engine. Raises EngineDead where there is none."""
        if self._engine is None or not self.is_ready:
            raise EngineDead("the engine is not ready")
        await self._engine.send(message)

    async def _launch(self, start: Start) -> None:
        """A fresh engine, and its Ready; who does not become ready is gone."""
        self._engine = engine = await Connection.open(self.in_process)
        try:
            await engine.send(start)
            answer = await engine.receive()
            if isinstance(answer, Failed):
                raise raised(answer.kind, answer.message)
            if not isinstance(answer, Ready):
                raise EngineDead("the engine process ended while it was loading")
        except BaseException:
            engine.kill()
            await engine.close()
            raise
        self.info = answer.info
        self._last_beat = time.monotonic()
        self.is_ready = True

    async def _run(self) -> None:
        """Hand the engine's messages on; start a fresh engine when it goes."""
        while self._engine is not None:
            while (message := await self._engine.receive()) is not None:
                self._last_beat = time.monotonic()
                self._received(message)
            self.is_ready = False
            log.error("the engine process is gone")
            self._lost(EngineDead, "the engine process ended; the request may be sent again")
            try:
                await self._restart(self._engine)
            except EngineDead as error:
                log.critical("the engine is given up: %s", error)
                self.failed.set()
                return

    async def _restart(self, gone: Connection) -> None:
        """A fresh engine with the adapters the last one had.

        Raises EngineDead where the last one cannot be ended, or too many have gone by now.
        """
        gone.kill()
        await gone.close()
        start = Start(replace(self.config, adapters=self.info.adapters), skip_bad_adapters=True)
        while not self.is_ready:
            delay = self._next_delay()
            log.info("starting a fresh engine in %.0f s", delay)
            await asyncio.sleep(delay)
            self.num_restarts += 1
            try:
                async with asyncio.timeout(self._load_limit):
                    await self._launch(start)
            except (EngineError, OSError):  # TimeoutError is an OSError
                log.exception("the engine did not start")

    @property
    def _load_limit(self) -> float:
        return max(self.watchdog_timeout, LOAD_FACTOR * self._load_seconds)

    def _next_delay(self) -> float:
        """Seconds to wait before the next restart. Raises EngineDead where there is none."""
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > RESTART_WINDOW:
            self._restarts.popleft()
        number = len(self._restarts)
        if number == len(RESTART_DELAYS):
            raise EngineDead(f"it was restarted {number} times in {RESTART_WINDOW:.0f} s")
        self._restarts.append(now)
        return RESTART_DELAYS[number]

    async def _watch(self) -> None:
        """Kill an engine that is alive but silent; `_run` then starts a fresh one.

        By ticks of our own clock: where both processes were stopped and go on (a container that
        was paused, a machine that slept), the engine gets its full time again.
        """
        silent = 0.0
        while True:
            seen = self._last_beat
            await asyncio.sleep(WATCH_SECONDS)
            silent = silent + WATCH_SECONDS if self.is_ready and seen == self._last_beat else 0.0
            if silent >= self.watchdog_timeout:
                log.error("no sign of life for %.0f s: killing the engine", silent)
                self.kill()
                silent = 0.0
