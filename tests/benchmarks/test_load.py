"""Arrivals, loops and the client, against a server that answers at once."""

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest

from benchmarks.load.arrivals import poisson
from benchmarks.load.client import complete
from benchmarks.load.loops import closed, opened
from benchmarks.load.measures import Record
from benchmarks.sessions import Call


class Script:
    """A session of numbered calls that remembers what it was answered."""

    def __init__(self, name: str, calls: int) -> None:
        self.answers: list[str] = []
        self._prompts: Iterator[str] = iter([f"{name}{i}" for i in range(calls)])

    def advance(self) -> Call | None:
        prompt = next(self._prompts, None)
        return None if prompt is None else Call(prompt, [], 1)

    def answer(self, text: str) -> None:
        self.answers.append(text)


def http(*events: object, status: int = 200) -> httpx.AsyncClient:
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    reply = httpx.Response(status, text=f": hello\n\n{lines}data: [DONE]\n\n")
    transport = httpx.MockTransport(lambda request: reply)
    return httpx.AsyncClient(base_url="http://server", transport=transport)


def text(piece: str) -> dict[str, object]:
    return {"choices": [{"text": piece}], "usage": None}


def test_arrivals_are_fixed_by_the_seed_and_come_at_the_rate() -> None:
    times = poisson(rate=4.0, count=4000, seed=1)
    assert times == poisson(rate=4.0, count=4000, seed=1) == sorted(times)
    assert times != poisson(rate=4.0, count=4000, seed=2)
    assert times[0] > 0
    assert times[-1] == pytest.approx(1000, rel=0.1)


def test_gaps_between_arrivals_are_exponential() -> None:
    times = poisson(rate=1.0, count=4000, seed=3)
    gaps = [b - a for a, b in pairwise(times)]
    assert sum(gap > 1.0 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)


async def test_a_closed_loop_never_runs_more_than_its_streams_and_plays_all() -> None:
    running, most = 0, 0

    async def send(call: Call, intended: float) -> Record:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Record(intended, intended, intended, tokens=1, text=call.prompt)

    sessions = [Script(name, 2) for name in "abcde"]
    done = await closed(send, sessions, streams=3)
    assert most == 3
    assert len(done) == 10
    assert [session.answers for session in sessions] == [[f"{n}0", f"{n}1"] for n in "abcde"]


async def test_an_open_loop_waits_for_nobody_and_counts_from_the_arrival() -> None:
    all_here = asyncio.Event()
    here = 0

    async def send(call: Call, intended: float) -> Record:
        nonlocal here
        here += 1
        if here == 3:
            all_here.set()
        await all_here.wait()
        return Record(intended, time.perf_counter(), tokens=1)

    before = time.perf_counter()
    arrivals = [0.0, 0.001, 0.002]
    done = await opened(send, [Script(name, 1) for name in "abc"], arrivals)
    intended = [record.intended for _, record in done]
    assert intended[0] >= before
    assert [t - min(intended) for t in sorted(intended)] == pytest.approx(arrivals)
    assert all(record.sent >= record.intended for _, record in done)


async def test_a_session_ends_at_its_first_failure() -> None:
    async def send(call: Call, intended: float) -> Record:
        return Record(intended, intended, error="refused")

    session = Script("a", 3)
    assert len(await closed(send, [session], streams=1)) == 1
    assert session.answers == []


async def test_a_stream_is_timed_piece_by_piece_and_counted_by_the_server() -> None:
    end = {"choices": [], "usage": {"completion_tokens": 7}}
    async with http(text("Hello"), text(""), text(" you"), end) as client:
        record = await complete(client, {}, intended=0.0)
    assert record.error is None
    assert (record.text, len(record.chunks), record.tokens) == ("Hello you", 2, 7)
    assert record.sent <= record.chunks[0] <= record.chunks[1] <= record.ended


async def test_messages_make_it_a_chat_completion() -> None:
    asked: list[str] = []

    def reply(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        delta = {"choices": [{"delta": {"role": "assistant", "content": "Hi"}}]}
        end = {"choices": [{"delta": {}}], "usage": {"completion_tokens": 2}}
        return httpx.Response(200, text=f"data: {json.dumps(delta)}\n\ndata: {json.dumps(end)}\n\n")

    transport = httpx.MockTransport(reply)
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as client:
        record = await complete(client, {"messages": []}, intended=0.0)
    assert asked == ["/v1/chat/completions"]
    assert (record.text, record.tokens, record.error) == ("Hi", 2, None)


async def test_refusals_and_broken_streams_are_failures() -> None:
    async with http(status=503) as client:
        assert "503" in ((await complete(client, {}, 0.0)).error or "")
    async with http(text("Hel"), {"error": {"message": "died"}}) as client:
        assert "died" in ((await complete(client, {}, 0.0)).error or "")
    async with http(text("Hel")) as client:
        assert "without a count" in ((await complete(client, {}, 0.0)).error or "")


async def test_a_server_that_is_gone_is_a_failure() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody there")

    transport = httpx.MockTransport(gone)
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as client:
        assert (await complete(client, {}, 0.0)).error == "ConnectError: nobody there"
