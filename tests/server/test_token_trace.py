"""`speculation.trace`: an answer says how each of its tokens came, where it is asked to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from engine.request import FinishReason, Request, RequestOutput
from tests.server.stub import StubClient
from tests.server.wire import CHAT, COMPLETIONS, WEATHER, chat, chunks, completion, error_of

TRACE = {"speculation": {"trace": True}}
BODIES = pytest.mark.parametrize(
    ("path", "body"), [(CHAT, chat(**TRACE)), (COMPLETIONS, completion(**TRACE))], ids=str
)


def drafted(trace: list[dict[str, Any]]) -> list[tuple[str, list[str], int]]:
    assert all(list(entry) == ["text", "sources", "depth"] for entry in trace)
    return [(entry["text"], entry["sources"], entry["depth"]) for entry in trace]


HELLO = [
    ("H", ["bita"], 1),
    ("e", ["ngram"], 2),
    ("l", ["prediction"], 3),
    ("l", ["bita", "ngram"], 4),
    ("o", [], 0),
]


@BODIES
async def test_a_whole_answer_traces_every_token(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    choice = (await http.post(path, json=body)).json()["choices"][0]
    trace = drafted(choice["trace"])
    assert trace[:5] == HELLO
    assert "".join(text for text, *_ in trace) == "Hello world"


@BODIES
async def test_a_stream_traces_the_tokens_of_each_step(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await http.post(path, json={**body, "stream": True})
    traces = [c["choices"][0]["trace"] for c in chunks(answer) if "trace" in c["choices"][0]]
    assert drafted(traces[0]) == HELLO
    assert "".join(entry["text"] for trace in traces for entry in trace) == "Hello world"


@pytest.mark.parametrize("speculation", [None, {}, {"trace": False}])
@pytest.mark.parametrize("stream", [True, False])
async def test_nobody_else_is_told(
    http: httpx.AsyncClient, client: StubClient, stream: bool, speculation: Any
) -> None:
    answer = await http.post(CHAT, json=chat(stream=stream, speculation=speculation))
    assert "trace" not in answer.text
    assert not client.requests[0].trace


async def test_a_trace_is_no_source_of_drafts(http: httpx.AsyncClient, client: StubClient) -> None:
    await http.post(CHAT, json=chat(**TRACE))
    assert client.requests[0].drafters == {}


async def test_tokens_that_a_tool_call_holds_back_are_traced_all_the_same(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    call = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    client.pieces = [call[:20], call[20:]]
    answer = await http.post(CHAT, json=chat(stream=True, tools=[WEATHER], **TRACE))
    traces = [c["choices"][0].get("trace", []) for c in chunks(answer)]
    assert "".join(entry["text"] for trace in traces for entry in trace) == call


async def test_bytes_tell_of_tokens_that_are_part_of_a_character(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.pieces = ["a🙂"]
    choice = (await http.post(CHAT, json=chat(**TRACE))).json()["choices"][0]
    first, *rest = choice["trace"]
    assert "bytes" not in first
    assert bytes(byte for entry in rest for byte in entry["bytes"]).decode() == "🙂"


async def test_an_answer_without_a_token_has_an_empty_trace(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    async def nothing(request: Request) -> AsyncIterator[RequestOutput]:
        yield RequestOutput(request.request_id, [], sources=[], finish_reason=FinishReason.LENGTH)

    client.generate = nothing  # type: ignore[assignment, method-assign]
    for path, body in ((CHAT, chat(**TRACE)), (COMPLETIONS, completion(**TRACE))):
        assert (await http.post(path, json=body)).json()["choices"][0]["trace"] == []


@pytest.mark.parametrize("trace", ["yes", 1, None, []])
async def test_anything_but_a_switch_is_refused_by_name(
    http: httpx.AsyncClient, trace: Any
) -> None:
    answer = await http.post(CHAT, json=chat(speculation={"trace": trace}))
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "speculation.trace"
