"""Server-sent events, and noticing that nobody listens any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.errors import ApiError, noted
from server.wire import dump

T = TypeVar("T")

Event = dict[str, Any]
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
STALL_SECONDS = 30.0
"""Time in which a client must take what waits for it in the server's buffers, if they are full."""


class ClientDisconnected(Exception):
    """The client went away, or takes nothing any more."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How an endpoint's stream looks.

    named: an event's `type` is its name as well. error: the event of an error on the way.
    end: bytes behind the last event.
    """

    named: bool = False
    error: Callable[[ApiError], Event] = ApiError.envelope
    end: bytes = DONE

    def frame(self, *events: Event) -> bytes:
        """The bytes of these events."""
        return b"".join(map(self._frame, events))

    def _frame(self, event: Event) -> bytes:
        name = f"event: {event['type']}\n".encode() if self.named else b""
        return name + b"data: " + dump(event) + b"\n\n"


CHUNKS = Framing()
"""Chat's and text completions'."""


class EventStream(Response):
    """`first`, then `rest`, then the framing's end; an error on the way is an event before it.

    Events that come together are sent together: one by one, each would cost a call of the system.
    After `keep_alive_seconds` without an event a comment is sent, which clients skip.
    A client that goes away, as `gone` tells, ends `rest` at once: it is cancelled where it waits,
    then closed. So does one that does not read for `STALL_SECONDS`: what it leaves unread is held
    in memory.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        first: asyncio.Future[list[Event]],
        rest: AsyncGenerator[list[Event], None],
        gone: asyncio.Future[None],
        keep_alive_seconds: float,
        framing: Framing = CHUNKS,
    ) -> None:
        self.status_code, self.background, self.body = 200, None, b""
        self._first, self._rest, self._gone = first, rest, gone
        self._seconds, self._framing = keep_alive_seconds, framing
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.raw_headers.append((b"content-type", b"text/event-stream; charset=utf-8"))

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        try:
            await _until(self._gone, self._send_all(scope, send))
        except (ClientDisconnected, OSError):
            return
        finally:
            await cancelled(self._first)
            await self._rest.aclose()

    async def _send_all(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sent = asyncio.get_running_loop().time()

        async def body(data: bytes, more: bool = True) -> None:
            nonlocal sent
            sent = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": data, "more_body": more})
            except TimeoutError as error:
                raise ClientDisconnected from error

        async def keep_alive() -> None:
            if not self._first.done():
                await body(KEEP_ALIVE)  # this long it has been silent already
            while True:
                silent = asyncio.get_running_loop().time() - sent
                await asyncio.sleep(self._seconds - silent)
                if asyncio.get_running_loop().time() - sent >= self._seconds:
                    await body(KEEP_ALIVE)

        keeping = asyncio.ensure_future(keep_alive())
        try:
            await body(self._framing.frame(*await self._first))
            async for events in self._rest:
                await body(self._framing.frame(*events))
        except (ClientDisconnected, OSError):
            raise
        except Exception as error:
            await body(self._framing.frame(self._framing.error(noted(error, scope))))
        finally:
            await cancelled(keeping)
        await body(self._framing.end, more=False)


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away.

    Raises ClientDisconnected once the cancelled work has cleaned up after itself.
    """
    return await _until(listen(receive), work)


def listen(receive: Receive) -> asyncio.Future[None]:
    """Done when the client goes away.

    The request's body has been read: all that can still arrive is the disconnect.
    """
    return asyncio.ensure_future(_disconnect(receive))


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have cleaned up after themselves."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until(gone: asyncio.Future[None], work: Coroutine[Any, Any, T]) -> T:
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnected
    finally:
        await cancelled(working, gone)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
