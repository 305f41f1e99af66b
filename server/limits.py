"""How much the server takes on: bytes of one body, requests at once."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import ApiError, overloaded


class BodyLimitMiddleware:
    """Answers 413 to a body of more than `max_bytes`, told by its length or found while reading."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "0")
        if told.isdecimal() and int(told) > self._max_bytes:
            await self._too_large.response()(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise self._too_large
            return message

        await self._app(scope, limited, send)

    @property
    def _too_large(self) -> ApiError:
        message = f"The body is larger than the {self._max_bytes} bytes this server takes."
        return ApiError(413, message, code="body_too_large")


class InFlightMiddleware:
    """Answers 429 to a POST while `max_requests` others are being served, streams included."""

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self._app, self._max_requests = app, max_requests
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._max_requests:
            error = overloaded(f"The server is busy with {self._in_flight} requests.")
            await error.response()(scope, receive, send)
            return
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
