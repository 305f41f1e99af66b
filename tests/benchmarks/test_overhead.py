"""The stub and the client that the server's own cost is measured with."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from benchmarks.overhead import engine
from benchmarks.overhead.client import Connection
from engine.config import EngineConfig
from engine.messages import Abort, Add, Outputs, Ready, Start, encode
from engine.process import _receive
from engine.request import FinishReason, Request, SamplingParams
from models import DEFAULT_MODEL


def test_the_stub_gives_every_request_a_token_a_step_up_to_its_limit() -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=engine.serve, args=(theirs,))
    thread.start()
    with ours:
        ours.sendall(encode(Start(EngineConfig(str(DEFAULT_MODEL)))))
        assert isinstance(_receive(ours), Ready)
        for name, tokens in (("a", 3), ("b", 2)):
            ours.sendall(encode(Add(Request(name, [1, 2], SamplingParams(max_tokens=tokens)))))
        ours.sendall(encode(Add(Request("left", [1], SamplingParams(max_tokens=10**9)))))
        ours.sendall(encode(Abort("left")))
        found: dict[str, list[FinishReason | None]] = {"a": [], "b": []}
        while sum(map(len, found.values())) < 5:
            message = _receive(ours)
            assert isinstance(message, Outputs)
            for output in message.outputs:
                assert len(output.token_ids) == 1
                if output.request_id != "left":
                    found[output.request_id].append(output.finish_reason)
    thread.join()
    theirs.close()
    assert found["a"] == [None, None, FinishReason.LENGTH]
    assert found["b"] == [None, FinishReason.LENGTH]


STREAM = [
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    b'1e\r\ndata: {"content":""}\n\n\r\n',
    b'20\r\ndata: {"content":"Hi"}\n\n\r\n',
    b'20\r\ndata: {"content":"ho"}\n\n\r\n',
    b"e\r\ndata: [DONE]\n\n\r\n",
    b"0\r\n\r\n",
]


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_events_are_counted_however_the_stream_is_cut(size: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        whole = b"".join(STREAM)
        for start in range(0, len(whole), size):
            writer.write(whole[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Connection(server.sockets[0].getsockname()[1]) as connection:
        stream = await connection.stream({})
    assert stream.chunks == 3
    assert stream.ttft > 0


async def test_a_refusal_is_no_stream() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Connection(server.sockets[0].getsockname()[1]) as connection:
        with pytest.raises(RuntimeError, match="503"):
            await connection.stream({})
