"""Where a batch's requests go: a running server, or the same application in this process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx

from server.client import Client
from server.commands.batch.errors import BatchError
from server.commands.chat import message_of
from server.commands.model_options import engine_config_of
from server.config import ServerConfig

_TIMEOUT = httpx.Timeout(None, connect=10.0)


def opened(options: argparse.Namespace) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """An HTTP client of what the options name; an engine of our own lives as long as it.

    Entering it raises BatchError where the server does not let us in, EngineError where the
    engine does not start.
    """
    if options.url is not None:
        return remote(options.url, options.api_key, options.concurrency)
    from engine.client import EngineClient

    config = ServerConfig(
        engine=engine_config_of(options),
        served_model_names=tuple(options.served_model_name),
        chat_template=Path(options.chat_template) if options.chat_template else None,
        tool_call_parser=options.tool_call_parser,
        reasoning_parser=options.reasoning_parser,
        # The limits guard a server from strangers; here who sends the requests runs the engine.
        max_body_bytes=sys.maxsize,
        max_concurrent_requests=options.concurrency,
        # Who stops it goes on later: nothing that runs is worth waiting for.
        shutdown_timeout=0,
    )
    return in_process(config, EngineClient(config.engine))


@asynccontextmanager
async def in_process(config: ServerConfig, client: Client) -> AsyncIterator[httpx.AsyncClient]:
    """The application without a socket: every field behaves as over HTTP."""
    from server.app import create_app

    app = create_app(config, client)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://batch", timeout=None) as http,
    ):
        yield http


@asynccontextmanager
async def remote(url: str, key: str | None, most: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server at `url`, which is asked first whether it lets us in."""
    base = url.rstrip("/").removesuffix("/v1")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=most)
    try:
        http = httpx.AsyncClient(base_url=base, headers=headers, timeout=_TIMEOUT, limits=limits)
    except httpx.InvalidURL as error:
        raise BatchError(f"--url {url}: {error}") from error
    async with http:
        try:
            response = await http.get("/v1/models")
        except httpx.TransportError as error:
            raise BatchError(f"--url {url}: {error}") from error
        if response.is_error:
            raise BatchError(f"--url {url}: {message_of(response)}")
        yield http
