"""Whatever a request asks for, speculation shows in nothing but its own receipt.

The embedded model in float32, with every drafter, in this process. Requests with and without
speculation run beside each other, so that they share forwards and the prefix cache.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import httpx
import pytest
import torch

from engine.client import EngineClient
from engine.config import EngineConfig
from models import DEFAULT_ADAPTER, DEFAULT_MODEL
from server.app import create_app
from server.config import ServerConfig
from tests.conformance.mixed_requests import Asked, mixed_requests
from tests.conformance.whole import differences, whole
from tests.factories import COST

AT_ONCE = 24


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The engine sets this process's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@asynccontextmanager
async def server(tree: str) -> AsyncIterator[httpx.AsyncClient]:
    """Its application, around an engine that drafts whether or not this machine gains by it."""
    config = EngineConfig(
        str(DEFAULT_MODEL),
        {"bita": str(DEFAULT_ADAPTER)},
        device="cpu",
        dtype="float32",
        tree=tree,
        kv_cache_memory=1 << 27,
        num_threads=1,
        max_waiting=4096,
    )
    client = EngineClient(config, in_process=True)
    app = create_app(ServerConfig(config), client)
    with (
        mock.patch("engine.engine.step_cost", return_value=COST),
        mock.patch("engine.speculation.payoff.Payoff.pays", return_value=True),
    ):
        await client.start()
        try:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
                yield http
        finally:
            await client.stop()


async def answers(http: httpx.AsyncClient, asked: list[Asked]) -> list[httpx.Response]:
    """So many at once, in their order."""
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(path: str, body: dict[str, Any]) -> httpx.Response:
        async with room:
            return await http.post(path, json=body, timeout=60)

    return list(await asyncio.gather(*(ask(path, body) for path, body in asked)))


def drafted_and_accepted(response: httpx.Response) -> tuple[int, int]:
    """Of the last receipt in an answer, streamed or not."""
    _, _, receipt = response.text.rpartition('"speculative_decoding":')
    counts: dict[str, Any] = json.JSONDecoder().raw_decode(receipt.strip())[0]
    return counts["num_draft_tokens"], counts["num_accepted_draft_tokens"]


async def held(count: int, seed: int, tree: str) -> None:
    """Each of so many requests is answered the same with and without speculation."""
    asked = mixed_requests(count, seed)
    both = [
        (path, {**body, "speculation": {"enabled": enabled}})
        for path, body in asked
        for enabled in (True, False)
    ]
    async with server(tree) as http:
        responses = await answers(http, both)
    found, accepted = [], 0
    for (path, body), fast, plain in zip(asked, responses[::2], responses[1::2], strict=True):
        assert fast.status_code == plain.status_code == 200, (body, fast.text, plain.text)
        assert drafted_and_accepted(plain) == (0, 0)
        accepted += drafted_and_accepted(fast)[1]
        lines = differences(whole(fast), whole(plain))
        if lines:
            found.append("\n  ".join([f"{path} {json.dumps(body)}", *lines[:4]]))
    assert not found, f"{len(found)} of {count} differ:\n" + "\n".join(found)
    assert accepted > count


async def test_40_mixed_requests_are_answered_the_same_without_speculation() -> None:
    await held(40, 0, "auto")


@pytest.mark.slow
@pytest.mark.parametrize(("tree", "count"), [("auto", 360), ("comb", 120)])
async def test_many_mixed_requests_are_answered_the_same_without_speculation(
    tree: str, count: int
) -> None:
    await held(count, 1, tree)
