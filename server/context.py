"""A request's id, its record, every answer's headers, and the answer to what nobody foresaw."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import as_api_error
from server.logging import OTHER_ROUTE, RequestRecord, open_record, record_in
from server.metrics import Metrics
from server.paths import GENERATION_PATHS
from server.tracing import Tracer, trace_id_of
from server.warnings import HEADER as WARNING_HEADER
from server.warnings import warning_of

_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class ContextMiddleware:
    """Gives each request an id (its own x-request-id, if sane) and returns it.

    Of each that has ended it counts the code, writes one line and, with a tracer, a span.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer | None) -> None:
        self._app, self._metrics, self._tracer = app, metrics, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(request_id_of(scope), scope["method"], scope["path"])
        open_record(scope, record)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = record.request_id
                headers["openai-processing-ms"] = str(round(record.elapsed_s * 1000))
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
            self._ended(scope, record)

    def _ended(self, scope: Scope, record: RequestRecord) -> None:
        if record.quiet:
            return
        # Who was refused before the router saw him has no route yet.
        path = record.path if record.path in GENERATION_PATHS else OTHER_ROUTE
        record.route = getattr(scope.get("route"), "path_format", path)
        record.trace_id = trace_id_of(scope)
        if self._tracer is not None and record.method == "POST":
            record.trace_id = self._tracer.trace(scope, record)
        self._metrics.http.ended(record)
        record.write()


def record_of(request: Request) -> RequestRecord:
    """The record that `ContextMiddleware` made for this request."""
    return record_in(request.scope)


def request_id_of(scope: Scope) -> str:
    """The client's x-request-id, if it is sane, or a fresh one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _ACCEPTABLE_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
