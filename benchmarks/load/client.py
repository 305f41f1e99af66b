"""One streamed answer over HTTP, timed."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from benchmarks.load.measures import Record


def http_client(base_url: str) -> httpx.AsyncClient:
    """A client that never makes a call wait for another.

    Every call has a connection of its own: a server may close an idle one just as it is used again,
    and to retry would hide it.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=base_url, limits=limits, timeout=600.0)


async def complete(http: httpx.AsyncClient, body: dict[str, Any], intended: float) -> Record:
    """Send `body` and read its stream to the end: a chat completion if it has messages.

    Errors of transport, status and stream are noted in the record.
    """
    record = Record(intended, time.perf_counter())
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    try:
        async with http.stream("POST", path, json=body) as response:
            if response.status_code != httpx.codes.OK:
                text = (await response.aread()).decode(errors="replace")
                record.error = f"HTTP {response.status_code}: {text[:300]}"
                return record
            async for line in response.aiter_lines():
                _take(line, record)
    except httpx.HTTPError as error:
        record.error = f"{type(error).__name__}: {error}"
    record.ended = time.perf_counter()
    if record.error is None and not record.tokens:
        record.error = "the stream ended without a count of tokens"
    return record


def _take(line: str, record: Record) -> None:
    """Note what one line of a server-sent event stream says."""
    if not line.startswith("data:"):
        return
    data = line.removeprefix("data:").strip()
    if data == "[DONE]":
        return
    event = json.loads(data)
    if event.get("error"):
        record.error = str(event["error"])[:300]
    for choice in event.get("choices") or ():
        text = choice.get("text") or (choice.get("delta") or {}).get("content")
        if text:
            record.chunks.append(time.perf_counter())
            record.text += text
    if event.get("usage"):
        record.tokens = event["usage"]["completion_tokens"]
