"""A stream that is silent for long says so; what fails at once is still a plain HTTP error."""

from __future__ import annotations

import asyncio
import json

import pytest

from engine.errors import RequestError
from engine.request import Request
from tests.server.conftest import MakeHttp
from tests.server.stub import StubClient
from tests.server.wire import CHAT, chat

COMMENT = ": keep-alive"


class SlowClient(StubClient):
    """Waits before the first output until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def _outputs(self, request: Request):  # type: ignore[no-untyped-def]
        await self.go.wait()
        async for output in super()._outputs(request):
            yield output


@pytest.fixture
def client() -> StubClient:
    return SlowClient()


async def test_comments_come_until_the_first_event(make_http: MakeHttp, client: SlowClient) -> None:
    async with make_http(keep_alive_seconds=0.02) as http:
        asking = asyncio.ensure_future(http.post(CHAT, json=chat(stream=True)))
        await client.arrivals.get()
        await asyncio.sleep(0.1)
        client.go.set()
        response = await asking
    events = response.text.split("\n\n")
    assert events[0] == COMMENT
    data = [event for event in events if event.startswith("data: ")]
    assert json.loads(data[0].removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
    assert data[-1] == "data: [DONE]"


async def test_an_error_after_a_comment_is_an_event(
    make_http: MakeHttp, client: SlowClient
) -> None:
    client.pieces, client.error = [], RequestError("no", "top_k")
    async with make_http(keep_alive_seconds=0.01) as http:
        asking = asyncio.ensure_future(http.post(CHAT, json=chat(stream=True)))
        await client.arrivals.get()
        await asyncio.sleep(0.05)
        client.go.set()
        response = await asking
    assert response.status_code == 200
    *_, error, done, _ = response.text.split("\n\n")
    assert json.loads(error.removeprefix("data: "))["error"]["param"] == "top_k"
    assert done == "data: [DONE]"


async def test_a_stream_that_begins_soon_has_no_comment(
    make_http: MakeHttp, client: SlowClient
) -> None:
    client.go.set()
    async with make_http() as http:
        response = await http.post(CHAT, json=chat(stream=True))
    assert COMMENT not in response.text


async def test_a_client_that_leaves_while_it_waits_ends_its_request(
    make_http: MakeHttp, client: SlowClient
) -> None:
    async with make_http(keep_alive_seconds=0.01) as http:
        asking = asyncio.ensure_future(http.post(CHAT, json=chat(stream=True)))
        await client.arrivals.get()
        await asyncio.sleep(0.03)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert len(client.closed) == 1
