"""POST /v1/messages, in Anthropic's form: what chat is asked, and how its answer is worded."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from engine.errors import ContextLengthExceeded, EngineDead, EngineOverloaded, RequestError
from engine.request import FinishReason
from tests.server.conftest import MakeHttp
from tests.server.stub import MODEL, StubClient
from tests.server.wire import MESSAGES, named_events

WEATHER = {"name": "weather", "input_schema": {"type": "object"}}
CALL = '<tool_call>{"name": "weather", "arguments": {"place": "Łódź"}}</tool_call>'


def asked(**fields: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "Hi"}]
    return {"model": MODEL, "max_tokens": 20, "messages": turns, **fields}


def prompt_of(client: StubClient) -> str:
    text: str = client.tokenizer.decode(client.requests[-1].token_ids)
    return text


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert body["type"] == "error"
    assert list(body) == ["type", "error", "request_id"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert list(body["error"]) == ["type", "message"]
    error: dict[str, Any] = body["error"]
    return error


async def test_answer_has_every_key_anthropic_requires(http: httpx.AsyncClient) -> None:
    body = (await http.post(MESSAGES, json=asked())).json()
    assert body.pop("id").startswith("msg_")
    assert body.pop("metrics")["speculative_decoding"]["num_spec_steps"] == 2
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "Hello world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len("<user>Hi<assistant>") - 16,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 16,
            "output_tokens": 11,
        },
    }


async def test_every_sampling_field_reaches_the_engine(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    same: dict[str, Any] = {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "seed": 3,
    }
    more = {"stop_sequences": ["a", "b"], "speculation": {"enabled": False}}
    response = await http.post(MESSAGES, json=asked(**same, **more, metadata={"user_id": "u"}))
    assert response.status_code == 200
    (request,) = client.requests
    assert {name: getattr(request.sampling, name) for name in same} == same
    assert request.sampling.stop == ("a", "b")
    assert request.speculation is False


async def test_blocks_are_the_turns_of_a_conversation(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "dry"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no"}],
                },
                {"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]
    system = [{"type": "text", "text": "Be brief."}]
    response = await http.post(MESSAGES, json=asked(messages=turns, system=system))
    assert response.status_code == 200
    assert prompt_of(client) == (
        "<system>Be brief.<user>Weather?"
        '<assistant>I look.{"name": "weather", "arguments": {"a": 1}}'
        "<tool>dry<tool>Error: \nno<user>And?<assistant>"
    )


async def test_a_call_is_a_block_of_its_own(http: httpx.AsyncClient, client: StubClient) -> None:
    client.pieces = ["One moment.", CALL]
    body = (await http.post(MESSAGES, json=asked(tools=[WEATHER]))).json()
    text, call = body["content"]
    assert text == {"type": "text", "text": "One moment."}
    assert call.pop("id").startswith("call_")
    assert call == {"type": "tool_use", "name": "weather", "input": {"place": "Łódź"}}
    assert body["stop_reason"] == "tool_use"
    assert "<tools>" in prompt_of(client)


async def test_tools_may_be_kept_from_the_model(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = [CALL]
    fields = {"tools": [WEATHER], "tool_choice": {"type": "none"}}
    body = (await http.post(MESSAGES, json=asked(**fields))).json()
    assert body["content"] == [{"type": "text", "text": CALL}]
    assert "<tools>" not in prompt_of(client)


@pytest.mark.parametrize(
    ("finish", "matched", "said"),
    [
        (FinishReason.STOP, None, ("end_turn", None)),
        (FinishReason.STOP, 4, ("end_turn", None)),
        (FinishReason.STOP, "END", ("stop_sequence", "END")),
        (FinishReason.LENGTH, None, ("max_tokens", None)),
    ],
)
async def test_why_it_stopped_is_told(
    http: httpx.AsyncClient,
    client: StubClient,
    finish: FinishReason,
    matched: str | int | None,
    said: tuple[str, str | None],
) -> None:
    client.finish, client.stop_reason = finish, matched
    body = (await http.post(MESSAGES, json=asked())).json()
    assert (body["stop_reason"], body["stop_sequence"]) == said


async def test_a_stream_has_anthropics_events_in_order(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = ["One", " moment.", CALL[:20], CALL[20:], "Then"]
    response = await http.post(MESSAGES, json=asked(stream=True, tools=[WEATHER]))
    events = named_events(response)
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert [event["type"] for event in events] == [
        *("message_start", "ping"),
        *(block[0], block[1], *block[1:]),
        *(*block, *block),
        *("message_delta", "message_stop"),
    ]
    assert "[DONE]" not in response.text
    message = events[0]["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert message["usage"]["output_tokens"] == 0


async def test_a_stream_adds_up_to_the_whole_message(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = ["One", " mo", "ment.", CALL[:20], CALL[20:] + CALL, "Then"]
    whole = (await http.post(MESSAGES, json=asked(tools=[WEATHER]))).json()
    events = named_events(await http.post(MESSAGES, json=asked(tools=[WEATHER], stream=True)))
    message = events[0]["message"]
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append({**event["content_block"], "partial_json": ""})
            case "content_block_delta":
                (kind, text), block = _delta(event), message["content"][event["index"]]
                block[kind] += text
            case "content_block_stop":
                block = message["content"][event["index"]]
                arguments = block.pop("partial_json")
                if block["type"] == "tool_use":
                    block["input"] = json.loads(arguments)
            case "message_delta":
                message |= {**event["delta"], "usage": event["usage"], "metrics": event["metrics"]}
    for block, other in zip(message["content"], whole["content"], strict=True):
        assert ("id" in block) == ("id" in other)
        block.pop("id", None)
        other.pop("id", None)
    assert {**message, "id": whole["id"]} == whole


def _delta(event: dict[str, Any]) -> tuple[str, str]:
    delta = event["delta"]
    field = {"text_delta": "text", "input_json_delta": "partial_json"}[delta["type"]]
    return field, delta[field]


async def test_an_error_on_the_way_is_an_event_in_anthropics_shape(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.error = EngineDead("gone")
    *_, last = named_events(await http.post(MESSAGES, json=asked(stream=True)))
    assert last["type"] == "error"
    assert last["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EngineDead("gone"), 503, "overloaded_error"),
        (EngineOverloaded("full", 1.0), 429, "rate_limit_error"),
        (ContextLengthExceeded("too long", "messages"), 400, "invalid_request_error"),
        (RuntimeError("?"), 500, "api_error"),
    ],
)
async def test_errors_of_the_engine_have_anthropics_types(
    http: httpx.AsyncClient, client: StubClient, error: Exception, status: int, kind: str
) -> None:
    client.pieces, client.error = [], error
    response = await http.post(MESSAGES, json=asked())
    assert response.status_code == status
    assert error_of(response)["type"] == kind


async def test_either_header_brings_the_key(make_http: MakeHttp) -> None:
    async with make_http(api_keys=("one",)) as http:
        for headers in ({"x-api-key": "one"}, {"authorization": "Bearer one"}):
            response = await http.post(MESSAGES, json=asked(), headers=headers)
            assert response.status_code == 200
        for headers in ({}, {"x-api-key": "two"}, {"x-api-key": ""}):
            response = await http.post(MESSAGES, json=asked(), headers=headers)
            assert response.status_code == 401
            assert error_of(response)["type"] == "authentication_error"
        pair = [("x-api-key", "two"), ("x-api-key", "one")]
        assert (await http.post(MESSAGES, json=asked(), headers=pair)).status_code == 401


async def test_limits_are_worded_so_too(make_http: MakeHttp) -> None:
    async with make_http(max_body_bytes=100) as http:
        response = await http.post(MESSAGES, json=asked(system="x" * 100))
    assert response.status_code == 413
    assert error_of(response)["type"] == "request_too_large"


def block(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [fields]}]}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"speculation": {"trace": True}}, "speculation.trace"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
    (block(type="image", source={}), "messages.0.content.0.type"),
    (block(type="text"), "messages.0.content.0.text"),
    (block(type="tool_use", id="c", name="x", input={}), "messages"),
    ({"messages": [{"role": "assistant", "content": "I"}]}, "messages"),
    ({"temperature": 9}, "temperature"),
    ({"stop_sequences": ["a"] * 17}, "stop_sequences"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
    ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
    ({"tool_choice": {"type": "auto"}}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"),
    ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ({"output_config": {"effort": "low"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"output_format": {"type": "json_schema", "schema": {}}}, "output_format"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"n": 2}, "n"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_is_refused_is_named_as_it_was_asked(
    http: httpx.AsyncClient, client: StubClient, fields: dict[str, Any], param: str
) -> None:
    response = await http.post(MESSAGES, json=asked(**fields))
    assert response.status_code == 400
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(f"{param}: ")
    assert not client.requests


async def test_another_model_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.post(MESSAGES, json=asked(model="other"))
    assert response.status_code == 404
    assert error_of(response)["type"] == "not_found_error"


@pytest.mark.parametrize("tools", [[], [WEATHER]])
async def test_counted_tokens_are_those_of_the_answers_usage(
    http: httpx.AsyncClient, client: StubClient, tools: list[dict[str, Any]]
) -> None:
    shown = {key: value for key, value in asked(tools=tools).items() if key != "max_tokens"}
    counted = (await http.post(f"{MESSAGES}/count_tokens", json=shown)).json()
    assert not client.requests
    usage = (await http.post(MESSAGES, json=asked(tools=tools))).json()["usage"]
    counts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    assert counted == {"input_tokens": sum(usage[name] for name in counts)}


async def test_counting_refuses_what_answering_would(http: httpx.AsyncClient) -> None:
    response = await http.post(f"{MESSAGES}/count_tokens", json={"model": MODEL})
    assert response.status_code == 400
    assert error_of(response)["message"].startswith("messages: ")


async def test_reasoning_is_a_thinking_block_that_may_be_sent_back(
    make_http: MakeHttp, client: StubClient
) -> None:
    client.pieces = ["<think>Is", " it?</think>", "Yes."]
    async with make_http(reasoning_parser="think") as http:
        body = (await http.post(MESSAGES, json=asked())).json()
        turns = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": body["content"]},
            {"role": "user", "content": "Sure?"},
        ]
        assert (await http.post(MESSAGES, json=asked(messages=turns))).status_code == 200
        events = named_events(await http.post(MESSAGES, json=asked(stream=True)))
    assert body["content"] == [
        {"type": "thinking", "thinking": "Is it?", "signature": ""},
        {"type": "text", "text": "Yes."},
    ]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert [delta["type"] for delta in deltas] == ["thinking_delta", "thinking_delta", "text_delta"]


async def test_output_config_is_a_strict_schema(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    config = {"format": {"type": "json_schema", "schema": schema}, "effort": "high"}
    assert (await http.post(MESSAGES, json=asked(output_config=config))).status_code == 200
    grammar = client.requests[-1].grammar
    assert grammar is not None
    assert json.loads(grammar.text) == {**schema, "x-guidance": {}}
    client.error = RequestError("no", "response_format.json_schema.schema")
    response = await http.post(MESSAGES, json=asked(output_config=config))
    assert error_of(response)["message"].startswith("output_config.format.schema: ")
