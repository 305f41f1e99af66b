"""Requests to send and streams to read."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.server.stub import MODEL

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **fields}


def completion(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "Hi", **fields}


def frames(response: httpx.Response) -> list[str]:
    """The data of each event."""
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    events = response.text.removesuffix("\n\n").split("\n\n")
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [event.removeprefix("data: ") for event in events]


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks before [DONE]."""
    *data, done = frames(response)
    assert done == "[DONE]"
    return [json.loads(item) for item in data]


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code", "request_id"]
    error: dict[str, Any] = body["error"]
    assert error.pop("request_id") == response.headers["x-request-id"]
    return error


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


def named_events(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream in which each has its `type` for a name, and nothing comes after."""
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for text in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = text.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events
