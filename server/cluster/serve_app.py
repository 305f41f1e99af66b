"""What Ray Serve is given, as `server.cluster.serve_app:build` (deploy/ray/serve.yaml)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from starlette.types import ASGIApp

from server import health
from server.cluster.exchange import Answer, Asked, exchange
from server.cluster.ingress import Ingress, ReplicaGone
from server.cluster.options import parsed
from server.cluster.scrape import merged
from server.errors import unavailable

SCRAPE_SECONDS = 5.0
"""A replica with all the requests it may have tells its series only when one of them has ended."""


class Arguments(BaseModel):
    """`args` of the application. options: of `bita serve`."""

    model_config = ConfigDict(extra="forbid")

    options: list[str] = []


class Server:
    """A replica: one engine, and the application that `bita serve` runs."""

    async def __init__(self, options: Sequence[str]) -> None:  # type: ignore[misc] # Ray awaits it
        from engine.client import EngineClient
        from server import logging
        from server.app import create_app
        from server.commands.serve import config_of

        logging.configure()
        config = config_of(parsed(options))
        client = EngineClient(config.engine, watchdog_timeout=config.watchdog_timeout)
        self._app = create_app(config, client)
        self._life = self._app.router.lifespan_context(self._app)
        await self._life.__aenter__()

    async def answer(self, asked: Asked) -> Answer:
        """The application's answer to a request."""
        async with aclosing(exchange(self._app, asked)) as pieces:
            async for piece in pieces:
                yield piece

    async def metrics(self) -> tuple[str, bytes]:
        """The replica's name, and its series."""
        name = serve.get_replica_context().replica_id.unique_id
        return name, self._app.state.serving.metrics.exposition()

    async def check_health(self) -> None:
        """Raises when only a fresh replica helps, for Ray to make one."""
        serving = self._app.state.serving
        if not health.check(serving.client, serving.intake).live:
            raise RuntimeError("the engine was given up")

    async def __del__(self) -> None:
        """Called by Ray when the last request has ended."""
        await self._life.__aexit__(None, None, None)


class Front:
    """A replica of the `Ingress`, in front of all `Server`s."""

    def __init__(self, servers: Any, max_body_bytes: int) -> None:
        self._servers, self._max_body_bytes = servers, max_body_bytes

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return Ingress.limited(self._ask, self._metrics, self._max_body_bytes)

    async def _ask(self, asked: Asked) -> Answer:
        pieces = self._servers.options(stream=True).answer.remote(asked)
        try:
            async for piece in pieces:
                yield piece
        except BackPressureError as error:
            raise unavailable("All replicas are busy, and as many requests as may wait.") from error
        except (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError) as error:
            raise ReplicaGone from error
        except (GeneratorExit, asyncio.CancelledError):
            pieces.cancel()
            raise

    async def _metrics(self) -> bytes:
        asked = self._servers.broadcast("metrics")
        try:
            return merged(dict(await asked.results_async(timeout_s=SCRAPE_SECONDS)))
        except (RayActorError, TimeoutError) as error:
            raise unavailable("Not every replica has told its series in time.") from error


def build(args: dict[str, Any]) -> Any:
    """The application: an `Ingress` deployment before a `Server` deployment.

    args: `Arguments`. Raises ValueError for others, and for options that a replica cannot have.
    What else they say is checked where the replica runs, as that is where the model lies.
    """
    arguments = Arguments.model_validate(args)
    options = parsed(arguments.options)
    servers = serve.deployment(
        Server,
        name="Server",
        request_router_config={"request_router_class": "server.cluster.router.PrefixRouter"},
    )
    front = serve.deployment(serve.ingress()(Front), name="Ingress", max_ongoing_requests=1000)
    return front.bind(servers.bind(arguments.options), options.max_body_size)
