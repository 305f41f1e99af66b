"""The server's whole life in processes of their own: engine killed, stopped, lost; SIGTERM, twice.

The engine is `stub_engine`, so that all of it takes seconds; what the real one adds is held by
`test_engine_process`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.faults.stub_engine import BROKEN
from tests.served import free_port
from tests.server.stub import byte_tokenizer, model_folder
from tests.server.wire import CHAT, chat

SECONDS = 60.0
SERVE = """
import sys
import engine.connection, engine.supervisor
engine.connection.ENGINE_MODULE = "tests.faults.stub_engine"
engine.supervisor.RESTART_DELAYS = (0.0, 0.0, 0.0)
engine.supervisor.WATCH_SECONDS = 0.1
from server.cli import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass
class Server:
    """A server's process, an HTTP client of it, and the file that keeps its engine from loading."""

    process: subprocess.Popen[bytes]
    http: httpx.AsyncClient
    broken: Path

    @property
    def engine(self) -> int:
        """The engine's process id."""
        (child,) = self.children()
        return child

    def children(self) -> list[int]:
        """Processes the server started."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in task.read_text().split()]

    async def ready(self) -> int:
        """The status of the readiness probe; 0 while nothing listens."""
        try:
            return (await self.http.get("/health/ready")).status_code
        except httpx.TransportError:
            return 0

    async def becomes(self, status: int) -> None:
        """Wait until the readiness probe has this status."""
        async with asyncio.timeout(SECONDS):
            while await self.ready() != status:
                assert self.process.poll() is None, "the server ended"
                await asyncio.sleep(0.01)

    async def ends(self) -> int:
        """Its exit status."""
        async with asyncio.timeout(SECONDS):
            return await asyncio.to_thread(self.process.wait)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing tells of a process
            await asyncio.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = model_folder(tmp_path)
    byte_tokenizer().save(str(model / "tokenizer.json"))
    return model


@asynccontextmanager
async def serving(model: Path, *options: str) -> AsyncIterator[Server]:
    port, broken = free_port(), model.parent / "broken"
    command = [sys.executable, "-c", SERVE, "serve", "--model", str(model), "--port", str(port)]
    environment = {**os.environ, BROKEN: str(broken)}
    process = subprocess.Popen([*command, *options], env=environment)
    limits = httpx.Limits(max_connections=None)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=SECONDS, limits=limits
        ) as http:
            yield Server(process, http, broken)
    finally:
        process.kill()
        process.wait()


class Stream:
    """A streamed answer, read in the background. begun: set with its first token."""

    def __init__(self, server: Server, max_tokens: int) -> None:
        self.begun = asyncio.Event()
        self._reading = asyncio.create_task(self._read(server.http, max_tokens))

    async def _read(self, http: httpx.AsyncClient, max_tokens: int) -> tuple[str, dict[str, str]]:
        text, error = "", {}
        body = chat(stream=True, max_tokens=max_tokens)
        async with http.stream("POST", CHAT, json=body) as response:
            assert response.status_code == 200
            last = ""
            async for line in response.aiter_lines():
                last = line or last
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                error = event.get("error", {})
                for choice in event.get("choices", []):
                    text += choice["delta"].get("content") or ""
                if text:
                    self.begun.set()
        assert last == "data: [DONE]"
        return text, error

    async def whole(self) -> tuple[str, dict[str, str]]:
        """Its text, and the error it ended with, or none."""
        async with asyncio.timeout(SECONDS):
            return await self._reading


async def streams(server: Server, count: int, max_tokens: int) -> list[Stream]:
    """So many streams that have begun."""
    found = [Stream(server, max_tokens) for _ in range(count)]
    async with asyncio.timeout(SECONDS):
        for stream in found:
            await stream.begun.wait()
    return found


async def check_recovery(server: Server, blow: signal.Signals) -> None:
    """An engine that is hit is replaced, and its streams are told."""
    engine, running = server.engine, await streams(server, 4, max_tokens=4000)
    os.kill(engine, blow)
    for stream in running:
        text, error = await stream.whole()
        assert text
        assert (error["type"], error["code"]) == ("server_error", "unavailable")
    assert (await server.http.get("/health/live")).status_code == 200
    await server.becomes(200)
    assert server.engine != engine
    (after,) = await streams(server, 1, max_tokens=8)
    assert await after.whole() == ("ABCDEFGH", {})


async def test_an_engine_is_replaced_and_sigterm_lets_every_stream_end(folder: Path) -> None:
    async with serving(folder, "--watchdog-timeout", "1") as server:
        await server.becomes(200)
        await check_recovery(server, signal.SIGKILL)
        await check_recovery(server, signal.SIGSTOP)

        running = await streams(server, 32, max_tokens=60)
        plain = asyncio.create_task(server.http.post(CHAT, json=chat(max_tokens=60)))
        await asyncio.sleep(0.1)
        engine = server.engine
        server.process.send_signal(signal.SIGTERM)
        await server.becomes(503)
        probe, late = await asyncio.gather(
            server.http.get("/health/ready"), server.http.post(CHAT, json=chat())
        )
        assert (probe.status_code, late.status_code) == (503, 503)
        assert late.json()["error"]["code"] == "unavailable"
        assert late.headers["retry-after"] == "1"
        assert late.headers["connection"] == "close"
        whole = [await stream.whole() for stream in running]
        assert {(len(text), len(error)) for text, error in whole} == {(60, 0)}
        assert (await plain).status_code == 200
        assert await server.ends() == 0
        await until(lambda: not Path(f"/proc/{engine}").exists())


async def test_an_engine_that_does_not_come_back_ends_the_server(folder: Path) -> None:
    """So that its supervisor starts it afresh."""
    async with serving(folder) as server:
        await server.becomes(200)
        running = await streams(server, 2, max_tokens=4000)
        server.broken.touch()
        os.kill(server.engine, signal.SIGKILL)
        for stream in running:
            assert (await stream.whole())[1]["code"] == "unavailable"
        assert await server.ends() == 1


@pytest.mark.slow
async def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    async with serving(folder) as server:
        await server.becomes(200)
        (running,) = await streams(server, 1, max_tokens=4000)
        engine = server.engine
        server.process.send_signal(signal.SIGTERM)
        await server.becomes(503)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert await server.ends() == 128 + signal.SIGTERM
        with pytest.raises(httpx.TransportError):
            await running.whole()
        await until(lambda: not Path(f"/proc/{engine}").exists())


async def test_headers_without_an_end_are_refused(folder: Path) -> None:
    async with serving(folder) as server:
        await server.becomes(200)
        url = server.http.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /health HTTP/1.1\r\nX-Long: " + b"a" * (1 << 18))
        async with asyncio.timeout(SECONDS):
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        assert await server.ready() == 200
