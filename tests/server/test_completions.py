"""POST /v1/completions: forms of prompt, shapes of answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.server.stub import StubClient
from tests.server.wire import COMPLETIONS, chunks, completion, error_of


@pytest.mark.parametrize(
    ("prompt", "lengths"),
    [
        ("Hi", [2]),
        (["Hi", "you"], [2, 3]),
        ([1, 2, 3], [3]),
        ([[1, 2], [3]], [2, 1]),
    ],
)
async def test_a_prompt_has_four_forms(
    http: httpx.AsyncClient, client: StubClient, prompt: Any, lengths: list[int]
) -> None:
    body = (await http.post(COMPLETIONS, json=completion(prompt=prompt))).json()
    assert [len(request.token_ids) for request in client.requests] == lengths
    assert [choice["text"] for choice in body["choices"]] == ["Hello world"] * len(lengths)
    assert body["usage"]["prompt_tokens"] == sum(lengths)
    assert body["object"] == "text_completion"


async def test_sixteen_tokens_unless_told_otherwise(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    await http.post(COMPLETIONS, json=completion())
    await http.post(COMPLETIONS, json=completion(max_tokens=3))
    assert [request.sampling.max_tokens for request in client.requests] == [16, 3]


async def test_each_prompt_has_n_choices_in_order(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    body = (await http.post(COMPLETIONS, json=completion(prompt=["a", "bb"], n=2))).json()
    assert [len(request.token_ids) for request in client.requests] == [1, 1, 2, 2]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"]["prompt_tokens"] == 3


async def test_stream_ends_with_usage(http: httpx.AsyncClient) -> None:
    asked = completion(stream=True, stream_options={"include_usage": True})
    *sent, last = chunks(await http.post(COMPLETIONS, json=asked))
    assert [chunk["choices"][0]["text"] for chunk in sent] == ["Hello", " world"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in sent] == [None, "stop"]
    assert all(chunk["usage"] is None for chunk in sent)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 11


async def test_logprobs_are_parallel_lists(http: httpx.AsyncClient, client: StubClient) -> None:
    client.pieces = ["ab", "c"]
    body = (await http.post(COMPLETIONS, json=completion(logprobs=2))).json()
    whole = body["choices"][0]["logprobs"]
    assert whole["tokens"] == ["a", "b", "c"]
    assert whole["token_logprobs"] == [-0.25] * 3
    assert whole["text_offset"] == [0, 1, 2]
    assert whole["top_logprobs"][0] == {"b": -0.5, "c": -9999.0, "a": -0.25}
    sent = chunks(await http.post(COMPLETIONS, json=completion(logprobs=2, stream=True)))
    offsets = [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in sent]
    assert offsets == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("prompt", "param"),
    [([258], "prompt"), ("", "prompt"), ([], "prompt"), ([[]], "prompt.0"), ({}, "prompt")],
)
async def test_a_prompt_the_model_cannot_read_is_refused(
    http: httpx.AsyncClient, prompt: Any, param: str
) -> None:
    response = await http.post(COMPLETIONS, json=completion(prompt=prompt))
    assert response.status_code == 400
    assert error_of(response)["param"] == param


async def test_too_many_choices_are_refused(http: httpx.AsyncClient) -> None:
    response = await http.post(COMPLETIONS, json=completion(prompt=["a"] * 100, n=2))
    assert response.status_code == 400
    assert error_of(response)["param"] == "prompt"
