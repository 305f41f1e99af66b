"""A real server on the loopback, with a stub for an engine, and the `openai` package's client."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvicorn
from openai import AsyncOpenAI

from server.app import create_app
from tests.server.stub import StubClient, model_folder, server_config

KEY = "secret"


@pytest.fixture
def client() -> StubClient:
    return StubClient()


@pytest.fixture
def url(client: StubClient, tmp_path: Path) -> Iterator[str]:
    """A server in a thread; its lifespan starts and stops the stub."""
    app = create_app(
        server_config(model_folder(tmp_path), api_keys=(KEY,), reasoning_parser="think"), client
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()
    assert not client.started


@pytest.fixture
async def api(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as api:
        yield api
