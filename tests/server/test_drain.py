"""The end of the application: what runs is finished or told so, what comes is refused."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from engine.errors import EngineStopped
from engine.request import Request
from server import process
from server.app import create_app
from server.commands.quantities import seconds
from tests.served import free_port
from tests.server.stub import StubClient, model_folder, server_config
from tests.server.wire import CHAT, RESPONSES, chat, error_of

SECONDS = 30.0


class StoppableClient(StubClient):
    """Says its first piece, and the second when `go` is set; ended, it fails what still waits."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.stopped = asyncio.Event(), asyncio.Event()

    async def stop(self) -> None:
        self.is_ready = False
        self.stopped.set()

    async def _outputs(self, request: Request):  # type: ignore[no-untyped-def]
        first = True
        async for output in super()._outputs(request):
            if not first:
                await asyncio.wait(
                    [asyncio.ensure_future(event.wait()) for event in (self.go, self.stopped)],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not self.go.is_set():
                    raise EngineStopped("the engine was stopped")
            first = False
            yield output


@pytest.fixture
def client() -> StoppableClient:
    return StoppableClient()


class Running:
    """An application between its start and its end, with an HTTP client."""

    def __init__(self, tmp_path: Path, client: StubClient, **changes: object) -> None:
        self._app = create_app(server_config(model_folder(tmp_path), **changes), client)
        transport = httpx.ASGITransport(self._app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://server")
        self._life = AsyncExitStack()

    async def __aenter__(self) -> Running:
        await self._life.enter_async_context(self._app.router.lifespan_context(self._app))
        return self

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(SECONDS):
            await self._life.aclose()
        await self.http.aclose()

    def end(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._life.aclose())

    async def ask(self, path: str = CHAT, **fields: object) -> asyncio.Task[httpx.Response]:
        """A request that runs."""
        asking = asyncio.create_task(self.http.post(path, json=chat(**fields)))
        await asyncio.sleep(0.02)
        assert not asking.done()
        return asking


async def test_what_runs_is_finished_and_what_comes_is_refused(
    tmp_path: Path, client: StoppableClient
) -> None:
    async with Running(tmp_path, client) as server:
        asked = [await server.ask(stream=stream) for stream in (True, False)]
        ending = server.end()
        await asyncio.sleep(0)
        for path, status in (
            ("/health/ready", 503),
            ("/health", 503),
            ("/health/live", 200),
            ("/metrics", 200),
            ("/v1/models", 503),
        ):
            assert (await server.http.get(path)).status_code == status
        for path in (CHAT, RESPONSES, "/v1/messages"):
            late = await server.http.post(path, json=chat())
            assert late.status_code == 503
            assert late.headers["retry-after"] == "1"
            assert late.headers["connection"] == "close"
        assert error_of(await server.http.post(CHAT, json=chat()))["code"] == "unavailable"
        assert len(client.requests) == 2
        assert not client.stopped.is_set()
        client.go.set()
        stream, plain = [await one for one in asked]
        assert stream.text.endswith("data: [DONE]\n\n")
        assert plain.json()["choices"][0]["message"]["content"] == "Hello world"
        await ending
        assert client.stopped.is_set()


@pytest.mark.parametrize("limit", [0.0, 0.05])
async def test_what_does_not_end_in_time_is_told_so(
    tmp_path: Path, client: StoppableClient, limit: float
) -> None:
    async with Running(tmp_path, client, shutdown_timeout=limit) as server:
        asked = [await server.ask(stream=stream, n=n) for stream in (True, False) for n in (1, 2)]
        async with asyncio.timeout(SECONDS):
            await server.end()
        *streams, plain, both = [await one for one in asked]
        for stream in streams:
            *_, error, done, _ = stream.text.split("\n\n")
            assert done == "data: [DONE]"
            told = json.loads(error.removeprefix("data: "))["error"]
            assert told.pop("request_id") == stream.headers["x-request-id"]
            assert told == {
                "message": "The server is shutting down.",
                "type": "server_error",
                "param": None,
                "code": "unavailable",
            }
        for response in (plain, both):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert "shutting down" in error_of(response)["message"]


async def test_a_signal_while_the_engine_loads_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []

    class Loading(StubClient):
        async def start(self) -> None:
            events.append("loads")
            try:
                await asyncio.Event().wait()
            finally:
                events.append("ended")

    config = server_config(model_folder(tmp_path), port=free_port())
    serving = asyncio.create_task(process._serve(config, Loading()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert events == ["loads", "ended"]


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "", "1m"])
def test_a_time_is_a_number_of_seconds(text: str) -> None:
    with pytest.raises(Exception, match="no number of seconds"):
        seconds(text)
    assert seconds("0.5") == 0.5
