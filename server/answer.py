"""A reply to its client: whole or as a stream, and not at all once nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from server.context import record_of
from server.generation import IndexedOutputs
from server.logging import CLIENT_CLOSED_REQUEST, RequestRecord
from server.serving import serving_of
from server.sse import (
    CHUNKS,
    ClientDisconnected,
    Event,
    EventStream,
    Framing,
    cancelled,
    listen,
    until_disconnect,
)
from server.wire import json_response


class Reply(Protocol):
    """Outputs, worded for one endpoint."""

    async def collect(self, outputs: IndexedOutputs) -> dict[str, Any]:
        """The whole response."""
        ...

    def events(self, outputs: IndexedOutputs) -> AsyncGenerator[list[Event], None]:
        """Its chunks, those of one output together; ends `outputs` when closed."""
        ...


async def answer(
    request: Request,
    reply: Reply,
    outputs: IndexedOutputs,
    stream: bool,
    framing: Framing = CHUNKS,
) -> Response:
    """The response; a client that leaves ends the generation at once.

    A stream begins with the first event, so that errors before it have their own status; where
    that takes long, as when a long prompt is computed, with a comment that keeps proxies waiting.
    """
    record = record_of(request)
    record.stream = stream
    try:
        if not stream:
            return json_response(await until_disconnect(request.receive, reply.collect(outputs)))
        events = _noting_abort(reply.events(outputs), record)
        seconds = (await serving_of(request)).config.keep_alive_seconds
        first, gone = asyncio.ensure_future(anext(events)), listen(request.receive)
        try:
            await asyncio.wait((first, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if first.done():
                first.result()  # raises what became of it
            elif gone.done():
                raise ClientDisconnected
        except BaseException:
            await cancelled(first, gone)
            raise
        return EventStream(first, events, gone, seconds, framing)
    except ClientDisconnected:
        record.client_aborted = True
        return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _noting_abort(
    events: AsyncGenerator[list[Event], None], record: RequestRecord
) -> AsyncGenerator[list[Event], None]:
    ended = False
    try:
        async for together in events:
            yield together
        ended = True
    except Exception:
        ended = True
        raise
    finally:
        record.client_aborted = not ended
        await events.aclose()
