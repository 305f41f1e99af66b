"""One HTTP request to an ASGI application that runs elsewhere, and its answer piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeAlias

from starlette.types import ASGIApp, Message, Scope

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read whole.

    path: as the application has its routes, without a prefix that leads to the application.
    prompt: hashes of the prompt's beginnings (`prefixes.hashes_of`), for who picks the replica.
    """

    method: str
    scheme: str
    path: str
    query: bytes
    headers: Headers
    client: tuple[str, int] | None
    body: bytes = b""
    prompt: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, scope: Scope, body: bytes, prompt: tuple[bytes, ...]) -> Asked:
        """The request of an ASGI scope, whose `path` begins with its `root_path`."""
        path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) or "/"
        client = scope.get("client")
        return cls(
            scope["method"],
            scope.get("scheme", "http"),
            path,
            scope.get("query_string", b""),
            tuple((bytes(name), bytes(value)) for name, value in scope["headers"]),
            (client[0], client[1]) if client else None,
            body,
            prompt,
        )

    @property
    def scope(self) -> Scope:
        """What an application is called with."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": self.scheme,
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": self.query,
            "headers": list(self.headers),
            "client": self.client,
            "server": None,
            "extensions": {},
        }


@dataclass(frozen=True, slots=True)
class Head:
    """How an answer begins."""

    status: int
    headers: Headers


Answer: TypeAlias = AsyncGenerator[Head | bytes, None]
"""The head, then the body in pieces."""


async def exchange(app: ASGIApp, asked: Asked) -> Answer:
    """The application's answer; closing it early is to the application a client that left.

    What has come up while nobody asked for it is one piece. Raises what the application raises.
    """
    heads: list[Head] = []
    body = bytearray()
    unread, news, gone = [asked.body], asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            heads.append(Head(message["status"], tuple(message.get("headers", ()))))
        else:
            body.extend(message.get("body", b""))
        news.set()

    running = asyncio.ensure_future(app(asked.scope, receive, send))
    running.add_done_callback(lambda _: news.set())
    try:
        while not running.done() or heads or body:
            await news.wait()
            news.clear()
            if heads:
                yield heads.pop()
            if body:
                piece = bytes(body)
                body.clear()
                yield piece
        await running
    finally:
        gone.set()
        await asyncio.gather(running, return_exceptions=True)
