"""A request's id, its record, every answer's headers, and the answer to what nobody foresaw."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import as_api_error
from server.logging import RequestRecord
from server.warnings import HEADER as WARNING_HEADER
from server.warnings import warning_of

_RECORD = "bita.record"
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class ContextMiddleware:
    """Gives each request an id (its own x-request-id, if sane), returns it and logs one line."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(_request_id(scope), scope["method"], scope["path"])
        scope[_RECORD] = record

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = record.request_id
                headers["openai-processing-ms"] = str(record.elapsed_ms)
                if warning := warning_of(scope):
                    headers[WARNING_HEADER] = warning
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            reply = as_api_error(error)
            if not record.status:
                await reply.response()(scope, receive, send_with_id)
        finally:
            record.write()


def record_of(request: Request) -> RequestRecord:
    """The record that `ContextMiddleware` made for this request."""
    record = request.scope[_RECORD]
    assert isinstance(record, RequestRecord)
    return record


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _ACCEPTABLE_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
