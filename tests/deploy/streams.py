"""Streamed chats, several at once, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import httpx

MODEL = "bita-concierge"
CHAT = "/v1/chat/completions"
_POOL = ThreadPoolExecutor(64)


@dataclass
class Stream:
    """One answer. ended: number of [DONE]s. errors: of error events, or of the connection."""

    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    text: str = ""
    ended: int = 0
    errors: list[Any] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Answered, without an error, to the end."""
        return (self.status, self.ended, self.errors) == (200, 1, [])


def chat(content: str, **fields: Any) -> dict[str, Any]:
    """A greedy request of one message."""
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 40, **fields}


def long_chat(content: str, tokens: int) -> dict[str, Any]:
    """One whose answer takes its time."""
    return chat(content, max_tokens=tokens, ignore_eos=True, speculation={"enabled": False})


def cached_tokens(url: str, opening: str) -> list[int]:
    """Of the prompt of every turn of a conversation, the tokens that were computed before."""
    messages, cached = [{"role": "user", "content": opening}], []
    for _ in range(3):
        answer = httpx.post(url + CHAT, json={**chat(""), "messages": messages}, timeout=60).json()
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        said = answer["choices"][0]["message"]["content"]
        messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": "And then?"},
        ]
    return cached


def start(url: str, bodies: Iterable[dict[str, Any]]) -> list[Future[Stream]]:
    """A stream a body, all at once."""
    return [_POOL.submit(_stream, url, body) for body in bodies]


def start_anew(
    url: str, bodies: Iterable[dict[str, Any]], until: Event
) -> list[Future[list[Stream]]]:
    """One stream a body at any time, each begun when the last of its body has ended."""

    def one_after_the_other(body: dict[str, Any]) -> list[Stream]:
        streams = []
        while not until.is_set():
            streams.append(_stream(url, body))
        return streams

    return [_POOL.submit(one_after_the_other, body) for body in bodies]


def results(streams: Iterable[Future[Stream]]) -> list[Stream]:
    """What became of them."""
    return [stream.result(timeout=240) for stream in streams]


def broken(streams: Iterable[Stream]) -> list[Stream]:
    """Those that are not whole."""
    return [stream for stream in streams if not stream.is_whole]


def _stream(url: str, body: dict[str, Any]) -> Stream:
    stream = Stream()
    request = {**body, "stream": True}
    try:
        with httpx.stream("POST", url + CHAT, json=request, timeout=240) as response:
            stream.status, stream.headers = response.status_code, response.headers
            for line in response.iter_lines():
                _take(stream, line)
    except httpx.HTTPError as error:
        stream.errors.append(error)
    return stream


def _take(stream: Stream, line: str) -> None:
    if line == "data: [DONE]":
        stream.ended += 1
    elif line.startswith(("data: ", "{")):
        chunk = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            stream.errors.append(chunk["error"])
        for choice in chunk.get("choices", ()):
            stream.text += choice["delta"].get("content") or ""
