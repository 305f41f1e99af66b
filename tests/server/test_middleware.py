"""Request ids, keys, limits, and the line that is logged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from engine.errors import EngineDead
from engine.request import Timing
from tests.server.conftest import MakeHttp
from tests.server.stub import MODEL, StubClient
from tests.server.wire import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    RESPONSES,
    chat,
    completion,
    error_of,
    frames,
)


async def test_a_request_id_is_returned_or_made(http: httpx.AsyncClient) -> None:
    mine = await http.get("/v1/models", headers={"x-request-id": "abc-1"})
    assert mine.headers["x-request-id"] == "abc-1"
    first, second = [(await http.get("/v1/nothing")).headers["x-request-id"] for _ in range(2)]
    assert first != second


@pytest.mark.parametrize("given", ["x" * 129, "a b", 'a"b'])
async def test_a_strange_request_id_is_replaced(http: httpx.AsyncClient, given: str) -> None:
    response = await http.get("/v1/models", headers={"x-request-id": given})
    assert response.headers["x-request-id"].startswith("req-")


async def test_two_requests_of_one_id_do_not_meet_in_the_engine(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    for _ in range(2):
        await http.post(CHAT, json=chat(), headers={"x-request-id": "same"})
    assert len({request.request_id for request in client.requests}) == 2


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer ", "one", "Basic one"])
async def test_without_a_key_nothing_is_served(
    make_http: MakeHttp, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with make_http(api_keys=("one", "two")) as http:
        for path in ("/v1/models", "/v1/chat/completions", "/openapi.json", "/v1/../v1/models"):
            response = await http.get(path, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert error_of(response)["code"] == "invalid_api_key"


@pytest.mark.parametrize("key", ["one", "two"])
async def test_any_of_the_keys_opens(make_http: MakeHttp, key: str) -> None:
    async with make_http(api_keys=("one", "two")) as http:
        response = await http.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert response.status_code == 200


async def test_probes_need_no_key(make_http: MakeHttp) -> None:
    async with make_http(api_keys=("one",)) as http:
        for path in ("/health", "/health/live", "/health/ready", "/metrics", "/ping", "/version"):
            assert (await http.get(path)).status_code == 200


async def test_a_body_too_large_is_refused_by_its_length(make_http: MakeHttp) -> None:
    async with make_http(max_body_bytes=100) as http:
        response = await http.post(CHAT, json=chat(user="x" * 100))
    assert response.status_code == 413
    assert error_of(response)["code"] == "body_too_large"


async def test_a_body_too_large_is_refused_while_it_arrives(make_http: MakeHttp) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b" " * 50

    async with make_http(max_body_bytes=100) as http:
        response = await http.post(CHAT, content=body())
    assert response.status_code == 413
    error_of(response)


async def test_a_full_server_tells_to_retry(make_http: MakeHttp, client: StubClient) -> None:
    client.hang = True
    async with make_http(max_concurrent_requests=1) as http:
        hanging = asyncio.create_task(http.post(CHAT, json=chat()))
        await client.arrivals.get()
        refused = await http.post(CHAT, json=chat())
        assert refused.status_code == 429
        assert error_of(refused)["type"] == "rate_limit_error"
        assert refused.headers["retry-after"] == "1"
        assert (await http.get("/health")).status_code == 200
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        client.hang = False
        assert (await http.post(CHAT, json=chat())).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(n=3)),
        (CHAT, chat(n=3, stream=True)),
        (COMPLETIONS, completion(prompt=["a", "b", "c"])),
        (COMPLETIONS, completion(best_of=3)),
        (RESPONSES, {"model": MODEL, "input": "Hi"}),
        (MESSAGES, chat(max_tokens=1)),
    ],
)
async def test_choices_that_find_no_room_are_refused_before_any_work(
    make_http: MakeHttp,
    client: StubClient,
    path: str,
    body: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.room = body.get("n", 1) - 1 if path != COMPLETIONS else 2
    for worker in ("server.chat_plan.prompt_of", "server.prompts.encode"):
        monkeypatch.setattr(worker, None)
    async with make_http() as http:
        refused = await http.post(path, json=body)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    if path != MESSAGES:
        assert error_of(refused)["code"] == "queue_full"
    assert not client.requests


async def test_a_request_is_one_json_line_without_its_text(
    http: httpx.AsyncClient, client: StubClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.timing = Timing(0.25, 0.5)
    messages = [{"role": "user", "content": "my secret"}]
    with caplog.at_level(logging.INFO, "bita.access"):
        await http.get("/health")
        headers = {"x-request-id": "r1", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
        await http.post(CHAT, json=chat(messages=messages), headers=headers)
    (record,) = [record for record in caplog.records if record.name == "bita.access"]
    line = json.loads(record.message)
    assert (line["request_id"], line["status"], line["route"]) == ("r1", 200, CHAT)
    assert (line["prompt_tokens"], line["output_tokens"]) == (26, 11)
    assert line["cached_tokens"] == 16
    assert line["finish_reasons"] == ["stop"]
    assert line["queue_s"] == 0.25
    assert line["ttft_s"] <= line["e2e_s"]
    assert line["trace_id"] == "ab" * 16
    assert "error" not in line
    assert not line["client_aborted"]
    assert "secret" not in record.message
    assert "Hello" not in record.message


async def test_the_line_of_a_stream_that_broke_off_says_by_what(
    http: httpx.AsyncClient, client: StubClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.error = EngineDead("gone")
    with caplog.at_level(logging.INFO, "bita.access"):
        response = await http.post(CHAT, json=chat(stream=True), headers={"x-request-id": "r1"})
    (line,) = [json.loads(r.message) for r in caplog.records if r.name == "bita.access"]
    assert (line["status"], line["error"], line["level"]) == (200, "unavailable", "error")
    *_, event, _ = frames(response)
    assert json.loads(event)["error"]["request_id"] == "r1"
