"""A client that goes away: its generation ends at once, streamed or not, begun or not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Scope

from server import sse
from server.app import create_app
from tests.server.stub import StubClient, model_folder, server_config
from tests.server.wire import CHAT, MESSAGES, RESPONSES, chat


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("pieces", [["Hello"], []], ids=["begun", "queued"])
@pytest.mark.parametrize(
    ("path", "fields", "n"),
    [
        (CHAT, {}, 1),
        (CHAT, {"n": 2}, 2),
        (RESPONSES, {"input": "Hi", "messages": None}, 1),
        (MESSAGES, {"max_tokens": 9}, 1),
    ],
    ids=["chat", "two choices", "responses", "messages"],
)
async def test_a_client_that_leaves_closes_its_generators(
    tmp_path: Path, stream: bool, pieces: list[str], path: str, fields: dict[str, Any], n: int
) -> None:
    client = StubClient(pieces=pieces, hang=True)
    app = create_app(server_config(model_folder(tmp_path)), client)
    asked = {**chat(stream=stream), **fields}
    body = json.dumps({key: asked[key] for key in asked if asked[key] is not None}).encode()
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    served = asyncio.create_task(app(_scope(path), inbox.get, send))
    async with asyncio.timeout(5):
        for _ in range(n):
            await client.arrivals.get()
        await asyncio.sleep(0.01)
        assert not client.closed
        inbox.put_nowait({"type": "http.disconnect"})
        await served
    assert sorted(client.closed) == sorted(request.request_id for request in client.requests)
    assert not any(b"[DONE]" in message.get("body", b"") for message in sent)
    text = app.state.serving.metrics.exposition().decode()
    assert f'finished_reason="abort",model_name="stub-model"}} {n}.0' in text


async def test_a_client_that_does_not_read_ends_its_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "STALL_SECONDS", 0.05)
    client = StubClient(pieces=["Hello"] * 9)
    app = create_app(server_config(model_folder(tmp_path)), client)
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    body = json.dumps(chat(stream=True)).encode()
    inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) > 3:
            await asyncio.Event().wait()  # as uvicorn does where its buffer is full

    async with asyncio.timeout(5):
        await app(_scope(CHAT), inbox.get, send)
    assert len(sent) == 4
    assert sent[1]["body"].count(b"data: ") == 2  # the role goes out with the first text
    assert len(client.closed) == 1
    text = app.state.serving.metrics.exposition().decode()
    assert 'finished_reason="abort",model_name="stub-model"} 1.0' in text


def _scope(path: str) -> Scope:
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "server": ("server", 80),
        "client": ("client", 1),
    }
    return scope
