"""Answers are what the OpenAPI document says, with whatever a request asks for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from engine.errors import ContextLengthExceeded, EngineDead
from engine.request import FinishReason
from server.schemas import answers
from server.schemas.translated_answers import MessageAnswer, ResponseAnswer, TokenCount
from tests.server.conftest import MakeHttp
from tests.server.stub import MODEL, StubClient
from tests.server.wire import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    RESPONSES,
    WEATHER,
    chat,
    chunks,
    completion,
    named_events,
)

EVERYTHING = {
    "n": 2,
    "return_token_ids": True,
    "prompt_logprobs": 2,
    "service_tier": "auto",
    "speculation": {"trace": True},
}
CASES: list[tuple[str, dict[str, Any], type[BaseModel]]] = [
    (CHAT, chat(), answers.ChatCompletion),
    (CHAT, chat(**EVERYTHING, logprobs=True, top_logprobs=2), answers.ChatCompletion),
    (CHAT, chat(prediction={"type": "content", "content": "He"}), answers.ChatCompletion),
    (COMPLETIONS, completion(), answers.Completion),
    (COMPLETIONS, completion(**EVERYTHING, echo=True, logprobs=2), answers.Completion),
    (CHAT, {}, answers.ErrorAnswer),
]


def same(value: Any, model: BaseModel) -> None:
    """Nothing is there that the model does not name, nothing is of another type."""
    known = model.model_dump(mode="json")

    def compare(one: Any, two: Any, path: str) -> None:
        if isinstance(one, dict) and isinstance(two, dict):
            for key in one:
                assert key in two, f"{path}.{key} is not in the document"
                compare(one[key], two[key], f"{path}.{key}")
        elif isinstance(one, list):
            for place, (a, b) in enumerate(zip(one, two, strict=True)):
                compare(a, b, f"{path}.{place}")
        else:
            assert one == two, path

    compare(value, known, "")


@pytest.mark.parametrize(("route", "body", "model"), CASES)
async def test_an_answer_is_what_the_document_says(
    http: httpx.AsyncClient, route: str, body: dict[str, Any], model: type[BaseModel]
) -> None:
    value = (await http.post(route, json=body)).json()
    same(value, model.model_validate(value))


async def test_calls_and_health_are_what_the_document_says(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = ['<tool_call>{"name": "weather", "arguments": {}}</tool_call>']
    value = (await http.post(CHAT, json=chat(tools=[WEATHER]))).json()
    same(value, answers.ChatCompletion.model_validate(value))
    assert value["choices"][0]["finish_reason"] == "tool_calls"
    for path in ("/health", "/health/live"):
        state = (await http.get(path)).json()
        same(state, answers.Health.model_validate(state))


async def test_the_document_is_whole(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["responses"]["200"]["content"], path
            assert "422" not in operation["responses"]
            if method == "post":
                body = operation["requestBody"]["content"]["application/json"]["schema"]
                name = body["$ref"].rpartition("/")[2]
                assert "example" in document["components"]["schemas"][name], name


async def test_a_stream_tells_token_ids_and_counts(http: httpx.AsyncClient) -> None:
    options = {"continuous_usage_stats": True, "include_usage": True}
    asked = {"stream": True, "stream_options": options, "return_token_ids": True, "n": 2}
    for route, body in ((CHAT, chat(**asked)), (COMPLETIONS, completion(**asked))):
        sent = chunks(await http.post(route, json=body))
        ids: dict[int, int] = {0: 0, 1: 0}
        for chunk in sent[:-1]:
            for choice in chunk["choices"]:
                ids[choice["index"]] += len(choice.get("token_ids", []))
        assert ids == {0: 11, 1: 11}
        counts = [chunk["usage"]["completion_tokens"] for chunk in sent]
        assert counts == sorted(counts)
        assert counts[-1] == 22
        whole = sent[0] if route == CHAT else sent[0]["choices"][0]
        assert len(whole["prompt_token_ids"]) == sent[-1]["usage"]["prompt_tokens"]
        tellers = [chunk for chunk in sent if "prompt_token_ids" in json.dumps(chunk)]
        assert len(tellers) == (1 if route == CHAT else 2)


async def test_a_tier_is_a_priority_and_comes_back(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    for tier, said in (("flex", "flex"), ("auto", "default"), ("priority", "priority")):
        body = (await http.post(CHAT, json=chat(service_tier=tier))).json()
        assert body["service_tier"] == said
        [chunk, *_] = chunks(await http.post(CHAT, json=chat(service_tier=tier, stream=True)))
        assert chunk["service_tier"] == said
    orders = [request.priority for request in client.requests]
    assert orders[0] == orders[1] > orders[2] == orders[3] == 0 > orders[4]
    assert "service_tier" not in (await http.post(CHAT, json=chat())).json()


async def test_prompt_logprobs_have_vllms_form(http: httpx.AsyncClient) -> None:
    body = (await http.post(COMPLETIONS, json=completion(prompt="ab", prompt_logprobs=1))).json()
    first, second = body["choices"][0]["prompt_logprobs"]
    assert first is None
    assert second == {
        "65": {"logprob": -0.25, "rank": 1, "decoded_token": "b"},
    }


async def test_too_long_a_prompt_is_named_as_the_request_names_it(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = []
    for route, body, name in ((CHAT, chat(), "messages"), (COMPLETIONS, completion(), "prompt")):
        client.error = ContextLengthExceeded("too long", "prompt")
        assert (await http.post(route, json=body)).json()["error"]["param"] == name


async def test_what_ended_a_choice_of_many_is_its_own(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.finish, client.stop_reason = FinishReason.LENGTH, None
    body = (await http.post(CHAT, json=chat(n=128))).json()
    assert [choice["index"] for choice in body["choices"]] == list(range(128))
    client.error = EngineDead("gone")
    assert (await http.post(CHAT, json=chat(n=3))).status_code == 503


def responses(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": "Hi", **fields}


def messages(**fields: Any) -> dict[str, Any]:
    return {"max_tokens": 20, **chat(**fields)}


FUNCTION = WEATHER["function"]
THOUGHT_AND_CALL = [
    "<think>well",
    '</think>Hm.<tool_call>{"name": "weather", "arguments": {"place": "x"}}</tool_call>',
]
EVERY_ITEM = responses(
    tools=[{"type": "function", **FUNCTION}],
    tool_choice="auto",
    include=["message.output_text.logprobs"],
    top_logprobs=1,
    metadata={"a": "b"},
    text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
)
EVERY_BLOCK = messages(
    tools=[{"name": FUNCTION["name"], "input_schema": FUNCTION["parameters"]}],
    stop_sequences=["END"],
)


@pytest.mark.parametrize(
    ("route", "body", "model"),
    [
        (RESPONSES, responses(), ResponseAnswer),
        (RESPONSES, EVERY_ITEM, ResponseAnswer),
        (MESSAGES, messages(), MessageAnswer),
        (MESSAGES, EVERY_BLOCK, MessageAnswer),
        (f"{MESSAGES}/count_tokens", chat(), TokenCount),
    ],
)
async def test_translated_answers_are_what_the_document_says(
    make_http: MakeHttp, client: StubClient, route: str, body: Any, model: type[BaseModel]
) -> None:
    if "tools" in body:
        client.pieces = THOUGHT_AND_CALL
    async with make_http(reasoning_parser="think") as http:
        value = (await http.post(route, json=body)).json()
    same(value, model.model_validate(value))
    items = value.get("output", value.get("content", [value]))
    assert len(items) == (3 if "tools" in body else 1)


async def test_an_unfinished_response_is_what_the_document_says(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.finish = FinishReason.LENGTH
    value = (await http.post(RESPONSES, json=responses(stream=True))).text
    for line in value.splitlines():
        if '"response":' in line:
            response = json.loads(line.removeprefix("data: "))["response"]
            same(response, ResponseAnswer.model_validate(response))
    client.error = EngineDead("gone")
    failed = named_events(await http.post(RESPONSES, json=responses(stream=True)))[-1]
    same(failed["response"], ResponseAnswer.model_validate(failed["response"]))
    assert failed["response"]["error"]
