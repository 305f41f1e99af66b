"""What is between Ray's proxy and a replica, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp, Message

from server.app import create_app
from server.cluster.exchange import Answer, Asked, exchange
from server.cluster.ingress import MAX_TRIES, Ingress, ReplicaGone
from server.cluster.options import parsed
from server.cluster.scrape import merged
from server.errors import unavailable
from tests.server.stub import StubClient, model_folder, server_config
from tests.server.wire import CHAT, MESSAGES, chat

MIB = 1024**2


class Replicas:
    """One replica, the first `lost` requests to which are lost, or their answers after `cut`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.lost, self.cut = app, 0, 0
        self.asked: list[Asked] = []

    async def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if self.lost >= len(self.asked):
            raise ReplicaGone
        async with aclosing(exchange(self.app, asked)) as pieces:
            number = 0
            async for piece in pieces:
                yield piece
                number += 1
                if number == self.cut:
                    raise ReplicaGone

    async def metrics(self) -> bytes:
        return b"series"


@pytest.fixture
def replicas(client: StubClient, tmp_path_factory: pytest.TempPathFactory) -> Replicas:
    folder = model_folder(tmp_path_factory.mktemp("replica"))
    return Replicas(create_app(server_config(folder), client))


@pytest.fixture
async def front(replicas: Replicas) -> AsyncIterator[httpx.AsyncClient]:
    app = Ingress.limited(replicas.answer, replicas.metrics, MIB)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://front") as http:
        yield http


def error_in(response: httpx.Response) -> dict[str, Any]:
    """Whose header with the request's id is Ray's proxy's to add."""
    error: dict[str, Any] = response.json()["error"]
    assert error["request_id"]
    return error


async def test_answers_are_the_replicas(front: httpx.AsyncClient, http: httpx.AsyncClient) -> None:
    for body in (chat(), chat(stream=True), chat(temperature=9), {}):
        one, other = [await client.post(CHAT, json=body) for client in (front, http)]
        assert one.status_code == other.status_code
        assert one.headers["content-type"] == other.headers["content-type"]
        assert len(one.content) == len(other.content)


async def test_a_path_below_a_prefix_is_guarded_like_one_without(
    replicas: Replicas, http: httpx.AsyncClient
) -> None:
    app = Ingress.limited(replicas.answer, replicas.metrics, MIB)
    transport = httpx.ASGITransport(app, root_path="/llm")
    async with httpx.AsyncClient(transport=transport, base_url="http://front") as front:
        below = await front.get("/llm/v1/adapters")
    assert below.status_code == (await http.get("/v1/adapters")).status_code != 200
    assert replicas.asked[0].path == "/v1/adapters"


async def test_lost_before_the_answer_another_replica_is_asked(
    front: httpx.AsyncClient, replicas: Replicas
) -> None:
    replicas.lost = MAX_TRIES - 1
    assert (await front.post(CHAT, json=chat())).status_code == 200
    assert len(replicas.asked) == MAX_TRIES
    replicas.lost = 10 * MAX_TRIES
    refused = await front.post(CHAT, json=chat())
    assert (refused.status_code, error_in(refused)["code"]) == (503, "unavailable")
    assert int(refused.headers["retry-after"]) >= 1


async def test_lost_within_a_stream_the_client_is_told(
    front: httpx.AsyncClient, replicas: Replicas
) -> None:
    replicas.cut = 2
    lines = (await front.post(CHAT, json=chat(stream=True))).text.splitlines()
    events = [line for line in lines if line]
    assert '"code":"unavailable"' in events[-2]
    assert events[-1] == "data: [DONE]"
    body = chat(stream=True, max_tokens=9)
    told = (await front.post(MESSAGES, json=body)).text
    assert "event: error\n" in told
    assert '"overloaded_error"' in told


async def test_lost_within_a_whole_answer_it_is_cut(
    front: httpx.AsyncClient, replicas: Replicas
) -> None:
    replicas.cut = 1
    with pytest.raises(ReplicaGone):
        await front.post(CHAT, json=chat())


async def test_a_full_queue_is_a_503(replicas: Replicas) -> None:
    async def full(asked: Asked) -> Answer:
        raise unavailable("All replicas are busy.")
        yield b""

    transport = httpx.ASGITransport(Ingress.limited(full, replicas.metrics, MIB))
    async with httpx.AsyncClient(transport=transport, base_url="http://front") as front:
        refused = await front.post(CHAT, json=chat())
    assert (refused.status_code, error_in(refused)["type"]) == (503, "server_error")
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_large_body_stays_outside(front: httpx.AsyncClient, replicas: Replicas) -> None:
    assert (await front.post(CHAT, content=b"x" * (MIB + 1))).status_code == 413
    assert replicas.asked == []


async def test_who_leaves_ends_the_generation(client: StubClient, replicas: Replicas) -> None:
    client.hang = True
    app = Ingress.limited(replicas.answer, replicas.metrics, MIB)
    body = httpx.Request("POST", "http://front/", json=chat(stream=True)).content
    gone, begun = asyncio.Event(), asyncio.Event()
    unread = [body]

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop()}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        begun.set()

    asked = Asked("POST", "http", CHAT, b"", ((b"content-type", b"application/json"),), None)
    serving = asyncio.create_task(app(asked.scope, receive, send))  # type: ignore[arg-type]
    await begun.wait()
    assert not client.closed
    gone.set()
    await serving
    assert client.closed


async def test_metrics_are_all_replicas(front: httpx.AsyncClient) -> None:
    assert (await front.get("/metrics")).content == b"series"


async def test_series_of_replicas_are_told_apart(http: httpx.AsyncClient) -> None:
    page = (await http.get("/metrics")).content
    both = merged({"a": page, "b": page}).decode()
    found = {
        sample.labels["replica"]: sample.value
        for family in text_string_to_metric_families(both)
        for sample in family.samples
        if sample.name == "vllm:num_requests_running"
    }
    assert found == {"a": 0, "b": 0}
    assert both.count("# TYPE vllm:num_requests_running gauge") == 1


@pytest.mark.parametrize(
    "options",
    [
        *(["--host", "0.0.0.0"], ["--port=9"], ["--admin-key", "k"], ["--adapter-dir", "."]),
        *(["--log-prompts", "f"], ["--nonsense"], ["--max-num-seqs", "x"]),
    ],
)
def test_options_without_a_meaning_are_refused(options: list[str]) -> None:
    with pytest.raises(ValueError, match=options[0].partition("=")[0]):
        parsed(options)


def test_variables_of_servers_without_ray_are_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITA_PORT", "9000")
    monkeypatch.setenv("BITA_SHUTDOWN_TIMEOUT", "7")
    assert parsed([]).port == 9000
    monkeypatch.setenv("BITA_ADMIN_KEY", "k")
    with pytest.raises(ValueError, match="admin-key"):
        parsed([])


def test_options_of_a_replica_are_taken() -> None:
    assert parsed(["--max-num-seqs", "7"]).max_num_seqs == 7
