"""The application: middleware, routes, and the engine's life around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.routing import Route

from server import errors
from server.auth import AuthMiddleware
from server.client import Client
from server.config import ServerConfig
from server.context import ContextMiddleware
from server.limits import BodyLimitMiddleware, IntakeMiddleware
from server.openapi import ERRORS
from server.paths import PathMiddleware
from server.routes import (
    adapters,
    chat,
    completions,
    messages,
    models,
    operations,
    page,
    responses,
    tokens,
    workers,
)
from server.serving import Serving

MODULES = (
    *(chat, completions, responses, messages, models, tokens),
    *(adapters, operations, workers, page),
)

ROUTERS = [module.router for module in MODULES]

PATHS = [route.path for router in ROUTERS for route in router.routes if isinstance(route, Route)]
"""Of all of them; a request may leave the /v1 out, or put it before."""


FLUSH_SECONDS = 2.0
"""Time that requests which were cut get to tell their clients so."""


def create_app(config: ServerConfig, client: Client) -> FastAPI:
    """An application that starts `client` when it starts, and drains and stops it when it ends.

    While it ends no request is taken on any more, and readiness says so; those that run get
    `config.shutdown_timeout` seconds, and what is left of them an error. So the socket should be
    open until then.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await client.start()
        try:
            yield
        finally:
            intake = serving.intake
            intake.close()
            await intake.emptied(config.shutdown_timeout)
            await client.stop()
            await intake.emptied(FLUSH_SECONDS)
            if serving.tracer is not None:
                await asyncio.to_thread(serving.tracer.close)

    serving = Serving.of(config, client)
    app = FastAPI(title="BiTA Serve", version=version("bita-serve"), lifespan=lifespan)
    app.state.serving = serving
    errors.install(app)
    # The last one added is the first a request meets.
    app.add_middleware(IntakeMiddleware, intake=serving.intake)
    app.add_middleware(BodyLimitMiddleware, max_bytes=config.max_body_bytes)
    app.add_middleware(AuthMiddleware, keys=config.api_keys, admin_key=config.admin_key)
    app.add_middleware(ContextMiddleware, metrics=serving.metrics, tracer=serving.tracer)
    app.add_middleware(PathMiddleware, paths=PATHS)
    for router in ROUTERS:
        app.include_router(router, responses=ERRORS)
    return app
