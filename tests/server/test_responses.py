"""POST /v1/responses: what chat is asked, and how its answer is worded as items and events."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from engine.errors import EngineDead
from engine.request import FinishReason
from tests.server.conftest import MakeHttp
from tests.server.stub import MODEL, StubClient
from tests.server.wire import RESPONSES, error_of, named_events

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
CALL = '<tool_call>{"name": "weather", "arguments": {"place": "Łódź"}}</tool_call>'


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": "Hi", **fields}


def prompt_of(client: StubClient) -> str:
    text: str = client.tokenizer.decode(client.requests[-1].token_ids)
    return text


async def test_answer_has_every_key_openai_requires(http: httpx.AsyncClient) -> None:
    body = (await http.post(RESPONSES, json=asked(metadata={"a": "b"}, temperature=0))).json()
    assert body["id"].startswith("resp_")
    (item,) = body.pop("output")
    assert item["id"].startswith("msg_")
    assert item["content"] == [
        {"type": "output_text", "text": "Hello world", "annotations": [], "logprobs": []}
    ]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert body["usage"] == {
        "input_tokens": len("<user>Hi<assistant>"),
        "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0},
        "output_tokens": 11,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 30,
    }
    assert body["metrics"]["speculative_decoding"]["num_spec_steps"] == 2
    said = {key: body[key] for key in body if key not in ("id", "usage", "metrics")}
    assert isinstance(said.pop("created_at"), int)
    assert isinstance(said.pop("completed_at"), int)
    assert said == {
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {"a": "b"},
        "model": MODEL,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 0.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }


async def test_every_sampling_field_reaches_the_engine(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    same: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "seed": 3,
        "presence_penalty": 0.25,
        "frequency_penalty": -0.25,
        "repetition_penalty": 1.5,
        "min_tokens": 2,
        "ignore_eos": True,
    }
    more = {
        "max_output_tokens": 8,
        "stop": ["a"],
        "logit_bias": {"5": 1},
        "speculation": {"enabled": False},
    }
    assert (await http.post(RESPONSES, json=asked(**same, **more))).status_code == 200
    (request,) = client.requests
    assert {name: getattr(request.sampling, name) for name in same} == same
    assert (request.sampling.max_tokens, request.sampling.stop) == (8, ("a",))
    assert request.sampling.logit_bias == {5: 1.0}
    assert request.speculation is False


async def test_items_are_the_turns_of_a_conversation(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    first = (await http.post(RESPONSES, json=asked())).json()["output"][0]
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        first,
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "dry"},
    ]
    response = await http.post(RESPONSES, json=asked(input=items, instructions="You are kind."))
    assert response.status_code == 200
    assert prompt_of(client) == (
        "<system>You are kind.<system>Be brief.<user>Weather?"
        '<assistant>Hello world{"name": "weather", "arguments": {"a": 1}}<tool>dry<assistant>'
    )


async def test_a_call_is_an_item_of_its_own(http: httpx.AsyncClient, client: StubClient) -> None:
    client.pieces = ["One moment.", CALL, CALL]
    body = (await http.post(RESPONSES, json=asked(tools=[WEATHER]))).json()
    message, call, other = body["output"]
    assert message["content"][0]["text"] == "One moment."
    assert (call["type"], call["status"], call["name"]) == ("function_call", "completed", "weather")
    assert call["arguments"] == '{"place": "Łódź"}'
    assert call["call_id"].startswith("call_")
    assert call["id"].startswith("fc_")
    assert len({call["call_id"], other["call_id"], call["id"], other["id"]}) == 4
    assert "<tools>" in prompt_of(client)
    assert body["tools"][0]["name"] == "weather"


async def test_tools_may_be_kept_from_the_model(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = [CALL]
    body = (await http.post(RESPONSES, json=asked(tools=[WEATHER], tool_choice="none"))).json()
    assert body["output"][0]["content"][0]["text"] == CALL
    assert body["tool_choice"] == "none"
    assert "<tools>" not in prompt_of(client)


async def test_running_out_of_tokens_is_incomplete(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.finish = FinishReason.LENGTH
    body = (await http.post(RESPONSES, json=asked(max_output_tokens=2))).json()
    assert (body["status"], body["output"][0]["status"]) == ("incomplete", "incomplete")
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["completed_at"] is None
    events = named_events(await http.post(RESPONSES, json=asked(stream=True)))
    assert events[-1]["type"] == "response.incomplete"


async def test_an_answer_of_nothing_is_an_empty_message(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = [""]
    body = (await http.post(RESPONSES, json=asked())).json()
    assert [part["text"] for part in body["output"][0]["content"]] == [""]


MESSAGE = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
CALLED = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


async def test_a_stream_has_openais_events_in_order(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = ["One", " moment.", CALL[:20], CALL[20:], "Then"]
    response = await http.post(RESPONSES, json=asked(stream=True, tools=[WEATHER]))
    events = named_events(response)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds == [
        "response.created",
        "response.in_progress",
        *MESSAGE[:3],
        *MESSAGE[2:],
        *CALLED,
        *MESSAGE,
        "response.completed",
    ]
    assert "[DONE]" not in response.text
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []


@pytest.mark.parametrize("logprobs", [True, False])
async def test_a_stream_adds_up_to_the_whole_response(
    http: httpx.AsyncClient, client: StubClient, logprobs: bool
) -> None:
    client.pieces = ["One", " mo", "ment.", CALL[:20], CALL[20:] + CALL, "Then"]
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 1} if logprobs else {}
    whole = (await http.post(RESPONSES, json=asked(tools=[WEATHER], **fields))).json()
    response = await http.post(RESPONSES, json=asked(tools=[WEATHER], stream=True, **fields))
    events = named_events(response)
    told = events[-1]["response"]
    assert _without_ids(told) == _without_ids(whole)
    assert told["output"] == [
        event["item"] for event in events if event["type"] == "response.output_item.done"
    ]
    for place, item in enumerate(told["output"]):
        own = [event for event in events if event.get("output_index") == place]
        deltas = [event for event in own if event["type"].endswith(".delta")]
        assert {event["item_id"] for event in deltas} == {item["id"]}
        text = item["arguments"] if "arguments" in item else item["content"][0]["text"]
        assert "".join(event["delta"] for event in deltas) == text
        if item["type"] == "message":
            entries = [entry for event in deltas for entry in event["logprobs"]]
            assert entries == item["content"][0]["logprobs"]
            assert bool(entries) == logprobs


def _without_ids(response: dict[str, Any]) -> dict[str, Any]:
    output = [
        {key: item[key] for key in item if key not in ("id", "call_id")}
        for item in response["output"]
    ]
    times = ("id", "created_at", "completed_at")
    return {key: response[key] for key in response if key not in times} | {"output": output}


async def test_log_probabilities_come_with_the_text_where_they_are_included(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    body = (await http.post(RESPONSES, json=asked(**fields))).json()
    entries = body["output"][0]["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in entries) == "Hello world"
    assert [len(entry["top_logprobs"]) for entry in entries] == [1] * 11
    assert client.requests[0].sampling.logprobs == 1


async def test_an_error_on_the_way_fails_the_response(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.error = EngineDead("gone")
    *_, last = named_events(await http.post(RESPONSES, json=asked(stream=True)))
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert "engine is not available" in last["response"]["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_output_has_its_own_status(
    http: httpx.AsyncClient, client: StubClient, stream: bool
) -> None:
    client.pieces, client.error = [], EngineDead("gone")
    response = await http.post(RESPONSES, json=asked(stream=stream))
    assert response.status_code == 503
    assert error_of(response)["code"] == "unavailable"


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"speculation": {"trace": True}}, "speculation.trace", "unsupported_parameter"),
    ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
    ({"store": True}, "store", "unsupported_parameter"),
    ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
    ({"background": True}, "background", "unsupported_parameter"),
    ({"truncation": "auto"}, "truncation", "unsupported_parameter"),
    ({"max_tool_calls": 1}, "max_tool_calls", "unsupported_parameter"),
    ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
    ({"include": ["file_search_call.results"]}, "include", "unsupported_parameter"),
    ({"reasoning": {"summary": "auto"}}, "reasoning.summary", "unsupported_parameter"),
    ({"tools": [{"type": "web_search"}]}, "tools.0.type", "unsupported_parameter"),
    ({"tools": [{"type": "function"}]}, "tools.0.name", "missing_required_parameter"),
    ({"tool_choice": {"type": "mcp"}}, "tool_choice.type", "unsupported_parameter"),
    ({"input": []}, "input", "invalid_value"),
    ({"input": 3}, "input", "invalid_type"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type", "unsupported_parameter"),
    ({"input": [{"role": "user"}]}, "input.0.content", "missing_required_parameter"),
    ({"input": [{"role": "judge", "content": "x"}]}, "input.0.role", "invalid_value"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input.0.content.0.type",
        "unsupported_parameter",
    ),
    (
        {"input": [{"type": "function_call", "name": "x", "arguments": "{}"}]},
        "input.0.call_id",
        "missing_required_parameter",
    ),
    ({"temperature": 9}, "temperature", "invalid_value"),
    ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
    ({"top_logprobs": 1}, "top_logprobs", "invalid_value"),
    ({"n": 2}, "n", "unsupported_parameter"),
    ({"max_tokens": 2}, "max_tokens", "unsupported_parameter"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
    ({"model": "other"}, "model", "model_not_found"),
]


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_is_refused_is_named_as_it_was_asked(
    http: httpx.AsyncClient, client: StubClient, fields: dict[str, Any], param: str, code: str
) -> None:
    response = await http.post(RESPONSES, json=asked(**fields))
    assert response.status_code == (404 if code == "model_not_found" else 400)
    error = error_of(response)
    assert (error["param"], error["code"]) == (param, code)
    assert not client.requests


async def test_what_the_prompt_cannot_be_made_of_is_named(http: httpx.AsyncClient) -> None:
    half = json.dumps(asked(input="\ud800"))
    headers = {"content-type": "application/json"}
    response = await http.post(RESPONSES, content=half, headers=headers)
    assert error_of(response)["param"] == "input"
    assert error_of(response)["message"] == "'input' is not valid Unicode text."


async def test_why_nothing_can_be_referred_to_is_said(http: httpx.AsyncClient) -> None:
    response = await http.post(RESPONSES, json=asked(previous_response_id="resp_1"))
    assert error_of(response)["message"] == (
        "This server stores no responses: send the earlier turns as items of 'input', and leave "
        "'previous_response_id' out."
    )


async def test_reasoning_is_an_item_that_may_be_sent_back(
    make_http: MakeHttp, client: StubClient
) -> None:
    client.pieces = ["<think>Is", " it?</think>", "Yes."]
    async with make_http(reasoning_parser="think") as http:
        events = named_events(await http.post(RESPONSES, json=asked(stream=True)))
        reasoning, message = events[-1]["response"]["output"]
        turns = [{"role": "user", "content": "Hi"}, reasoning, message]
        turns.append({"role": "user", "content": "Sure?"})
        assert (await http.post(RESPONSES, json=asked(input=turns))).status_code == 200
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Is it?"}]
    assert message["content"][0]["text"] == "Yes."
    kinds = [event["type"] for event in events if event.get("output_index") == 0]
    assert [kind.removeprefix("response.") for kind in kinds] == [
        *("output_item.added", "content_part.added"),
        *("reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done"),
        *("content_part.done", "output_item.done"),
    ]
