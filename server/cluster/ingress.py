"""What clients talk to: reads a request, has a replica answer it, relays the answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from starlette.types import ASGIApp, Receive, Scope, Send

from server.anthropic.reply import FRAMING as MESSAGES
from server.cluster.exchange import Answer, Asked, Head
from server.cluster.prefixes import hashes_of
from server.context import request_id_of
from server.errors import ApiError, as_api_error, noted, unavailable
from server.limits import BodyLimitMiddleware
from server.logging import RequestRecord, open_record
from server.metrics import CONTENT_TYPE
from server.sse import CHUNKS, ClientDisconnected, Framing, until_disconnect

MAX_TRIES = 3

_METRICS = re.compile(r"(/v1)?/metrics")
_FRAMINGS = (
    (re.compile(r"(/v1)?/messages"), MESSAGES),
    (
        re.compile(r"(/v1)?/responses"),
        Framing(
            named=True, error=lambda error: {"type": "error", **error.envelope()["error"]}, end=b""
        ),
    ),
)


class ReplicaGone(Exception):
    """The replica that had a request is there no more."""


class Ingress:
    """An application whose every request is answered by `ask`, but for the one for metrics.

    ask: a replica's answer; raises ReplicaGone, or the ApiError of a queue that is full.
    metrics: all replicas' series, in Prometheus' text format.

    A request whose replica is lost before its answer began is given to another one, as none has an
    effect that outlasts it. Lost later, a stream ends with an error event; a whole answer is cut.
    """

    def __init__(
        self, ask: Callable[[Asked], Answer], metrics: Callable[[], Awaitable[bytes]]
    ) -> None:
        self._ask, self._metrics = ask, metrics

    @classmethod
    def limited(
        cls,
        ask: Callable[[Asked], Answer],
        metrics: Callable[[], Awaitable[bytes]],
        max_body_bytes: int,
    ) -> ASGIApp:
        """One that answers 413 to larger bodies, before a replica sees them."""
        limited = BodyLimitMiddleware(cls(ask, metrics), max_body_bytes)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                # For the words of our own errors; a line in the log is the replica's to write.
                request_id = request_id_of(scope)
                open_record(scope, RequestRecord(request_id, scope["method"], scope["path"]))
            await limited(scope, receive, send)

        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        try:
            body = await _read(receive)
            asked = Asked.of(scope, body, hashes_of(body))
            await until_disconnect(receive, self._relay(asked, scope, send))
        except (ClientDisconnected, OSError):
            return
        except ApiError as error:
            await error.response()(scope, receive, send)

    async def _relay(self, asked: Asked, scope: Scope, send: Send) -> None:
        """Raises ApiError while nothing has been sent."""
        head, rest = await self._begin(asked)

        async def body(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async with aclosing(rest):
            # Ray's proxy adds the request's id itself.
            headers = [(name, value) for name, value in head.headers if name != b"x-request-id"]
            await send({"type": "http.response.start", "status": head.status, "headers": headers})
            try:
                async for piece in rest:
                    assert isinstance(piece, bytes)
                    await body(piece)
            except ReplicaGone:
                if not dict(headers).get(b"content-type", b"").startswith(b"text/event-stream"):
                    raise
                await body(_lost(asked.path, scope))
        await body(b"", more=False)

    async def _begin(self, asked: Asked) -> tuple[Head, Answer]:
        """How the answer begins, and the rest of it."""
        for _ in range(MAX_TRIES):
            answer = self._metrics_answer() if _METRICS.fullmatch(asked.path) else self._ask(asked)
            try:
                head = await anext(answer)
                assert isinstance(head, Head)
                return head, answer
            except ReplicaGone:
                continue
            except Exception as error:
                raise as_api_error(error) from error
        raise unavailable("The replicas that had the request are gone.")

    async def _metrics_answer(self) -> Answer:
        series = await self._metrics()
        yield Head(200, ((b"content-type", CONTENT_TYPE.encode()),))
        yield series


def _lost(path: str, scope: Scope) -> bytes:
    """What ends a stream whose replica is lost."""
    framing = next((framing for paths, framing in _FRAMINGS if paths.fullmatch(path)), CHUNKS)
    error = noted(unavailable("The replica that wrote this answer is gone."), scope)
    return framing.frame(framing.error(error)) + framing.end


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _live(receive: Receive, send: Send) -> None:
    """Start and end, to which there is nothing."""
    for _ in range(2):
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
