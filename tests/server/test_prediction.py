"""`prediction`: what reaches the engine, and what usage says became of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from engine.request import FinishReason, Request, RequestOutput
from tests.server.stub import StubClient
from tests.server.wire import CHAT, COMPLETIONS, WEATHER, chat, chunks, completion, error_of


def predicted(content: Any, **fields: Any) -> dict[str, Any]:
    return chat(prediction={"type": "content", "content": content}, **fields)


async def details(http: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, int]:
    response = await http.post(CHAT, json=body)
    found: dict[str, int] = response.json()["usage"]["completion_tokens_details"]
    return found


@pytest.mark.parametrize(
    ("text", "accepted", "rejected"),
    [
        ("Hello world", 11, 0),
        ("Hello there world", 11, 6),
        ("Hello world, how are you?", 11, 14),
        ("lo world", 8, 0),
        ("HELLO WORLD", 1, 10),
    ],
)
async def test_usage_tells_what_of_the_prediction_came_true(
    http: httpx.AsyncClient, text: str, accepted: int, rejected: int
) -> None:
    """The stub's tokens are bytes, and it says "Hello world"."""
    assert await details(http, predicted(text)) == {
        "accepted_prediction_tokens": accepted,
        "rejected_prediction_tokens": rejected,
    }


async def test_a_streams_usage_tells_the_same(http: httpx.AsyncClient) -> None:
    body = predicted("Hello there world", stream=True, stream_options={"include_usage": True})
    usage = chunks(await http.post(CHAT, json=body))[-1]["usage"]
    assert usage["completion_tokens_details"] == {
        "accepted_prediction_tokens": 11,
        "rejected_prediction_tokens": 6,
    }


async def test_every_choice_has_the_prediction_to_itself(http: httpx.AsyncClient) -> None:
    assert await details(http, predicted("Hello there world", n=2)) == {
        "accepted_prediction_tokens": 22,
        "rejected_prediction_tokens": 12,
    }


async def test_the_engine_gets_the_predictions_tokens(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    for content in ("Hello", parts):
        assert (await http.post(CHAT, json=predicted(content))).status_code == 200
    hello = client.tokenizer.encode("Hello").ids
    assert [request.prediction for request in client.requests] == [hello, hello]


@pytest.mark.parametrize("content", ["", []])
async def test_an_empty_prediction_predicts_nothing(
    http: httpx.AsyncClient, client: StubClient, content: Any
) -> None:
    response = await http.post(CHAT, json=predicted(content))
    assert response.status_code == 200
    assert client.requests[0].prediction == []
    assert "completion_tokens_details" not in response.json()["usage"]


async def test_fields_that_change_the_answer_go_with_a_prediction(http: httpx.AsyncClient) -> None:
    """Unlike OpenAI's: no draft changes an answer, so there is nothing to forbid."""
    fields: dict[str, Any] = {
        "logprobs": True,
        "presence_penalty": 1.0,
        "max_completion_tokens": 20,
        "tools": [WEATHER],
        "n": 2,
    }
    assert (await http.post(CHAT, json=predicted("Hello", **fields))).status_code == 200


@pytest.mark.parametrize(
    ("prediction", "param"),
    [
        ({"content": "x"}, "prediction.type"),
        ({"type": "content"}, "prediction.content"),
        ({"type": "text", "content": "x"}, "prediction.type"),
        ({"type": "content", "content": 7}, "prediction.content"),
        ({"type": "content", "content": "\ud800"}, "prediction.content"),
    ],
    ids=["no type", "no content", "other type", "a number", "no text"],
)
async def test_a_bad_prediction_is_named(
    http: httpx.AsyncClient, client: StubClient, prediction: dict[str, Any], param: str
) -> None:
    # Half a character can only be sent escaped.
    body = json.dumps(chat(prediction=prediction)).encode()
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert not client.requests


async def test_completions_take_none(http: httpx.AsyncClient) -> None:
    body = completion(prediction={"type": "content", "content": "x"})
    response = await http.post(COMPLETIONS, json=body)
    assert response.status_code == 400
    assert error_of(response)["code"] == "unsupported_parameter"


async def test_a_request_may_choose_its_sources(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    asked = {"ngram": False, "prediction": True, "bita": None}
    assert (await http.post(CHAT, json=chat(speculation=asked))).status_code == 200
    assert client.requests[0].speculation is True
    assert client.requests[0].drafters == {"ngram": False, "prediction": True}


async def test_what_a_stop_string_cut_off_did_not_come_true(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    """As the engine's client cuts it: the outputs end with the stop string's token."""

    async def cut(request: Request) -> AsyncIterator[RequestOutput]:
        tokens = client.tokenizer.encode("Hello w").ids
        yield RequestOutput(
            request.request_id,
            tokens,
            "Hello ",
            finish_reason=FinishReason.STOP,
            stop_reason="w",
            num_prompt_tokens=3,
            num_generated_tokens=len(tokens),
        )

    client.generate = cut  # type: ignore[method-assign]
    assert await details(http, predicted("Hello world", stop="w")) == {
        "accepted_prediction_tokens": 7,
        "rejected_prediction_tokens": 4,
    }
