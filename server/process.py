"""The server's process: from a configuration to a drained exit.

The first SIGTERM or Ctrl-C ends it well: the socket stays open while requests that run are
finished, so that load balancers see readiness turn 503 and new requests are answered rather than
refused. The second ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from engine.client import EngineClient
from engine.errors import EngineDead, EngineError
from server.app import create_app
from server.config import ServerConfig

log = logging.getLogger("bita.server")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: ServerConfig) -> None:
    """Serve until told to stop, then let running requests end.

    Raises EngineError where the engine cannot start, is given up, or the address is not to be had.
    """
    asyncio.run(_run(config))


async def _run(config: ServerConfig) -> None:
    client = EngineClient(config.engine, watchdog_timeout=config.watchdog_timeout)
    serving = asyncio.create_task(_serve(config, client))
    stopped = _on_first_signal(serving.cancel, client.kill)
    try:
        await serving
    except asyncio.CancelledError:
        if not stopped():
            raise


async def _serve(config: ServerConfig, client: EngineClient) -> None:
    """Serve until cancelled; what comes then is the application's own end."""
    app = create_app(config, client)
    server = _Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            access_log=False,
            log_config=None,
            # Not whichever is installed: httptools sets no limit to the size of headers.
            http="h11",
            # Entered here instead: it ends before the socket is closed, and an engine that cannot
            # start is our error, not uvicorn's.
            lifespan="off",
            # By then all has ended that is going to.
            timeout_graceful_shutdown=1,
        )
    )
    listening: asyncio.Task[None] | None = None
    try:
        async with app.router.lifespan_context(app):
            # All that is here by now stays: a full collection would look through it every time.
            gc.collect()
            gc.freeze()
            listening = asyncio.create_task(_listen(server))
            failed = asyncio.create_task(client.failed.wait())
            await asyncio.wait((listening, failed), return_when=asyncio.FIRST_COMPLETED)
            failed.cancel()
    finally:
        server.should_exit = True
        if listening is not None:
            await listening
    raise EngineDead("the engine went down again and again; see the log")


async def _listen(server: _Server) -> None:
    try:
        await server.serve()
    except SystemExit as error:  # it has logged why
        address = f"{server.config.host}:{server.config.port}"
        raise EngineError(f"cannot listen on {address}") from error


class _Server(uvicorn.Server):
    """uvicorn's, which leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _on_first_signal(stop: Callable[[], object], kill: Callable[[], None]) -> Callable[[], bool]:
    """Have the first signal call `stop`, the second call `kill` and end the process.

    Returns what tells whether there was one.
    """
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        kill()
        os._exit(128 + number)

    def first(number: int) -> None:
        seen.append(number)
        for each in SIGNALS:
            loop.remove_signal_handler(each)
            # Not the loop's: it may be what hangs.
            signal.signal(each, end)
        log.info("stopping: running requests may end; one more signal ends it at once")
        stop()

    for each in SIGNALS:
        loop.add_signal_handler(each, first, each)
    return lambda: bool(seen)
