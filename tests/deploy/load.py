"""A mix of requests as a busy server gets them: streams, samples, adapters, mistakes, leavers."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx

from benchmarks.workloads.conversations import DATA

CHAT = "/v1/chat/completions"


async def load(url: str, seconds: float, users: int, adapters: list[str]) -> None:
    """Have `users` at once ask one thing after the other. adapters: names they may choose."""
    conversations = _conversations()
    deadline = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:

        async def user(number: int) -> None:
            choice = random.Random(number)
            while time.monotonic() < deadline:
                body = {
                    "model": choice.choice(adapters),
                    "messages": next(conversations),
                    "max_tokens": choice.choice((16, 32, 64, 96)),
                    "temperature": 0,
                }
                (kind,) = choice.choices(KINDS, weights=WEIGHTS)
                await kind(http, body)

        await asyncio.gather(*map(user, range(users)))


async def _whole(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await http.post(CHAT, json=body)


async def _stream(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await http.post(CHAT, json={**body, "stream": True})


async def _sampled(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await http.post(CHAT, json={**body, "temperature": 0.7, "n": 2})


async def _plain(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await http.post(CHAT, json={**body, "speculation": {"enabled": False}})


async def _predicted(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    last = body["messages"][-1]["content"]
    await http.post(CHAT, json={**body, "prediction": {"type": "content", "content": last}})


async def _leaver(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    async with http.stream("POST", CHAT, json={**body, "stream": True}) as response:
        await anext(response.aiter_lines())


async def _mistaken(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await http.post(CHAT, json={**body, "temperature": 9})
    await http.post(CHAT, json={**body, "model": "nobody"})
    await http.get("/v1/models/nobody")


Kind = Callable[[httpx.AsyncClient, dict[str, Any]], Awaitable[None]]
KINDS: list[Kind] = [_stream, _whole, _sampled, _plain, _predicted, _leaver, _mistaken]
WEIGHTS = (50, 20, 8, 5, 5, 4, 3)


def _conversations() -> Iterator[list[dict[str, Any]]]:
    """Talks of the embedded model's trade up to each thing a user says, over and over."""
    lines = [json.loads(line)["messages"] for line in DATA.read_text().splitlines()]
    begun = [
        messages[: place + 1]
        for messages in lines
        for place, message in enumerate(messages)
        if message["role"] == "user" and all(m.get("content") for m in messages[: place + 1])
    ]
    random.Random(0).shuffle(begun)
    return itertools.cycle(begun)
