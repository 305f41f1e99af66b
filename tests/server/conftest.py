"""An application around a stub engine, and an HTTP client that talks to it in-process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest

from server.app import create_app
from tests.server.stub import StubClient, model_folder, server_config

MakeHttp: TypeAlias = Callable[..., httpx.AsyncClient]


@pytest.fixture
def client() -> StubClient:
    return StubClient()


@pytest.fixture
async def make_http(client: StubClient, tmp_path: Path) -> AsyncIterator[MakeHttp]:
    """Makes HTTP clients of applications configured by keyword."""
    model = model_folder(tmp_path)
    async with AsyncExitStack() as stack:

        def make(**changes: object) -> httpx.AsyncClient:
            app = create_app(server_config(model, **changes), client)
            transport = httpx.ASGITransport(app)
            http = httpx.AsyncClient(transport=transport, base_url="http://server")
            stack.push_async_callback(http.aclose)
            return http

        yield make


@pytest.fixture
def http(make_http: MakeHttp) -> httpx.AsyncClient:
    return make_http()
