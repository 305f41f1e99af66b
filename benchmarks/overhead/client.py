"""A client that reads streams and looks at no more of them than it must."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

EVENT = b"data: "
CONTENT = b'"content":"'
EMPTY = b'"content":""'
END = b"0\r\n\r\n"


@dataclass(slots=True)
class Stream:
    """ttft: seconds from sending the request to the first text. chunks: events before [DONE]."""

    ttft: float
    chunks: int


class Connection:
    """One kept-open connection, as the openai client has."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def stream(self, body: dict[str, Any]) -> Stream:
        """Send a chat request and read all of its stream. Raises RuntimeError if it fails."""
        data = json.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        started, first, events = time.perf_counter(), 0.0, 0
        self._writer.write(head.encode() + data)
        tail = await self._reader.readuntil(b"\r\n\r\n")
        if not tail.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server said {tail!r}")
        while not tail.endswith(END):
            part = await self._reader.read(1 << 16)
            text = tail + part
            if not part:
                raise RuntimeError(f"the stream ended after {tail!r}")
            # An event is counted where its first bytes are whole.
            events += text.count(EVENT) - tail.count(EVENT)
            if not first and text.count(CONTENT) > text.count(EMPTY):
                first = time.perf_counter()
            tail = text if not first else text[-len(EVENT) :]
        return Stream(first - started, events - 1)
