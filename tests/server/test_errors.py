"""Every error: its status and OpenAI's envelope."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from engine.errors import (
    ContextLengthExceeded,
    EngineDead,
    EngineError,
    EngineOverloaded,
    RequestError,
    UnknownAdapter,
)
from tests.server.stub import StubClient
from tests.server.wire import CHAT, WEATHER, chat, error_of, frames

IMAGE = [{"type": "image_url", "image_url": {"url": "http://x"}}]


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
        ({"messages": [{"content": "a"}]}, "messages.0.role", "missing_required_parameter"),
        ({"messages": [{"role": "x", "content": "a"}]}, "messages.0.role", "invalid_value"),
        ({"messages": user(IMAGE)}, "messages.0.content.0.type", "unsupported_parameter"),
        ({"messages": user(5)}, "messages.0.content", "invalid_type"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.tool_call_id", None),
        ({"messages": user("\ud800")}, "messages", "invalid_value"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", "invalid_value"),
        ({"stop": ["a"] * 17}, "stop", None),
        ({"stop": ""}, "stop", None),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "invalid_value"),
        ({"logit_bias": {"258": 1}}, "logit_bias", "invalid_value"),
        ({"stop_token_ids": [258]}, "stop_token_ids", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 1}, "top_logprobs", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
    ],
)
async def test_a_bad_field_is_named(
    http: httpx.AsyncClient,
    client: StubClient,
    fields: dict[str, Any],
    param: str,
    code: str | None,
) -> None:
    body = json.dumps(chat(**fields))
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert code is None or error["code"] == code
    assert error["message"]
    assert not client.requests


@pytest.mark.parametrize(
    "fields",
    [
        {"audio": {"voice": "x"}},
        {"modalities": ["text", "audio"]},
        {"functions": []},
        {"function_call": "auto"},
        {"web_search_options": {}},
        {"reasoning_effort": "low"},
        {"best_of": 2},
        {"echo": True},
        {"chat_template": "x"},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_field_that_would_change_the_answer_is_not_ignored(
    http: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    response = await http.post(CHAT, json=chat(**fields))
    assert response.status_code == 400
    error = error_of(response)
    assert error["code"] == "unsupported_parameter"
    assert error["param"] == next(iter(fields))
    assert next(iter(fields)) in error["message"]


@pytest.mark.parametrize("body", ["{", "", "null", "[" * 100_000, "[1]"])
async def test_a_body_that_is_no_request_is_a_400(http: httpx.AsyncClient, body: str) -> None:
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"


async def test_not_a_number_is_refused(http: httpx.AsyncClient) -> None:
    body = json.dumps(chat(temperature=float("nan")))
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["param"] == "temperature"


@pytest.mark.parametrize("fields", [{"user": 5, "\ud800": 1}, {"model": "\ud800"}])
async def test_half_a_surrogate_pair_is_the_clients_mistake(
    http: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    body = json.dumps(chat(**fields))
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 404)
    error_of(response)


@pytest.mark.parametrize("depth", [100, 300, 900])
async def test_deep_nesting_harms_nobody(http: httpx.AsyncClient, depth: int) -> None:
    parameters = '{"a":' * depth + "1" + "}" * depth
    body = json.dumps(chat(tools=[WEATHER])).replace('{"type": "string"}', parameters)
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400)


async def test_unknown_model(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=chat(model="other"))
    assert response.status_code == 404
    error = error_of(response)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


async def test_unknown_path_and_wrong_method(http: httpx.AsyncClient) -> None:
    missing, wrong = await http.get("/v1/nothing"), await http.get(CHAT)
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert error_of(missing)["code"] == "not_found"
    assert error_of(wrong)["code"] == "method_not_allowed"


TOO_LONG = "This model's maximum context length is 256 tokens. However, you asked for 300."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (
            ContextLengthExceeded(TOO_LONG, "messages"),
            400,
            "context_length_exceeded",
            "messages",
        ),
        (RequestError("no", "top_k"), 400, "invalid_value", "top_k"),
        (UnknownAdapter("no adapter x", "adapter"), 404, "model_not_found", "model"),
        (EngineOverloaded("full", 1.5), 429, "queue_full", None),
        (EngineDead("gone"), 503, "unavailable", None),
        (EngineError("/secret/path"), 500, "internal_error", None),
        (ZeroDivisionError("/secret/path"), 500, "internal_error", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_what_the_engine_raises_first_is_a_plain_http_error(
    http: httpx.AsyncClient,
    client: StubClient,
    stream: bool,
    error: Exception,
    status: int,
    code: str,
    param: str | None,
) -> None:
    client.pieces, client.error = [], error
    response = await http.post(CHAT, json=chat(stream=stream))
    assert response.status_code == status
    wording = error_of(response)
    assert (wording["code"], wording["param"]) == (code, param)
    assert "secret" not in response.text
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    if code == "context_length_exceeded":
        assert wording["message"] == TOO_LONG


async def test_an_error_on_the_way_is_an_event_before_done(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.error = EngineDead("gone")
    response = await http.post(CHAT, json=chat(stream=True))
    assert response.status_code == 200
    *_, event, done = frames(response)
    assert json.loads(event)["error"]["code"] == "unavailable"
    assert done == "[DONE]"


async def test_a_server_without_an_engine_says_when_to_come_back(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.is_ready = False
    response = await http.post(CHAT, json=chat())
    assert response.status_code == 503
    assert response.headers["x-should-retry"] == "true"
