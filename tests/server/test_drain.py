"""SIGTERM: what runs is finished, then the engine stops and the process ends well."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.server.stub import model_folder
from tests.server.wire import CHAT, chat

SERVE = """
import asyncio, sys
import engine.client
from tests.server.stub import StubClient

class SlowClient(StubClient):
    def __init__(self, config):
        super().__init__(pieces=["tick "] * 10)

    async def stop(self):
        print("engine stopped", flush=True)

    async def generate(self, request):
        async for output in super().generate(request):
            await asyncio.sleep(0.1)
            yield output

engine.client.EngineClient = SlowClient
from server.cli import main
sys.exit(main(["serve", "--model", sys.argv[1], "--port", sys.argv[2]]))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(model_folder(tmp_path)), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, f"http://127.0.0.1:{port}"
        process.kill()


def wait_until_up(url: str) -> None:
    for _ in range(300):
        try:
            httpx.get(f"{url}/health")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


@pytest.mark.slow
def test_a_stream_is_finished_after_sigterm(server: tuple[subprocess.Popen[str], str]) -> None:
    process, url = server
    wait_until_up(url)
    with httpx.stream("POST", url + CHAT, json=chat(stream=True)) as response:
        lines = response.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out == "engine stopped\n"
