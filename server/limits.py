"""How much the server takes on: bytes of one body, requests at once."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.auth import OPEN_PATHS
from server.errors import ApiError
from server.intake import Intake


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


class IntakeMiddleware:
    """Gives each POST a place, before anything is done for it, or says why there is none.

    What probes and scrapers ask is answered to the last.
    """

    def __init__(self, app: ASGIApp, intake: Intake) -> None:
        self._app, self._intake = app, intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        with ExitStack() as place:
            try:
                if scope["method"] == "POST":
                    place.enter_context(self._intake.place())
                else:
                    self._intake.check_open()
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
            await self._app(scope, receive, send)
