"""POST /v1/completions: forms of prompt, shapes of answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.request import FinishReason, Request, RequestOutput
from server.app import create_app
from tests.server.stub import StubClient, model_folder, server_config
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


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["ab", [64, 65]])
async def test_an_echo_begins_with_the_prompt(
    http: httpx.AsyncClient, client: StubClient, prompt: Any, stream: bool
) -> None:
    client.pieces = ["c", "d"]
    asked = completion(prompt=prompt, echo=True, logprobs=1, stream=stream)
    response = await http.post(COMPLETIONS, json=asked)
    parts = chunks(response) if stream else [response.json()]
    choices = [part["choices"][0] for part in parts]
    assert "".join(choice["text"] for choice in choices) == "abcd"
    whole = {
        key: [value for choice in choices for value in choice["logprobs"][key]]
        for key in choices[0]["logprobs"]
    }
    assert whole["tokens"] == ["a", "b", "c", "d"]
    assert whole["token_logprobs"] == [None, -0.25, -0.25, -0.25]
    assert whole["text_offset"] == [0, 1, 2, 3]
    assert whole["top_logprobs"][0] is None
    assert client.requests[0].sampling.prompt_logprobs == 1


async def test_an_echo_alone_generates_nothing(http: httpx.AsyncClient, client: StubClient) -> None:
    client.pieces, client.finish = [""], FinishReason.LENGTH
    asked = completion(prompt=["ab", "c"], echo=True, max_tokens=0)
    body = (await http.post(COMPLETIONS, json=asked)).json()
    assert [choice["text"] for choice in body["choices"]] == ["ab", "c"]
    assert [request.sampling.max_tokens for request in client.requests] == [0, 0]
    assert [request.sampling.prompt_logprobs for request in client.requests] == [None, None]
    assert body["usage"]["completion_tokens"] == 0


class Ranked(StubClient):
    """Each choice says its own log-probability."""

    async def generate(self, request: Request) -> AsyncIterator[RequestOutput]:
        logprob = (-3.0, -1.0, -2.0)[int(request.request_id.rpartition("-")[2])]
        async for output in super().generate(request):
            assert output.logprobs is not None
            entries = [replace(entry, logprob=logprob) for entry in output.logprobs]
            yield replace(output, text=str(logprob), logprobs=entries)


async def test_the_best_of_many_are_answered(tmp_path: Path) -> None:
    client = Ranked(pieces=["Hello"])
    folder = tmp_path / "ranked"
    folder.mkdir()
    app = create_app(server_config(model_folder(folder)), client)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")
    body = (await http.post(COMPLETIONS, json=completion(best_of=3, n=2, seed=5))).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert [choice["text"] for choice in body["choices"]] == ["-1.0", "-2.0"]
    assert [choice["logprobs"] for choice in body["choices"]] == [None, None]
    assert [request.sampling.seed for request in client.requests] == [5, 6, 7]
