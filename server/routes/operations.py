"""What probes, scrapers and operators ask; open to all, with or without API keys."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from server import health
from server.metrics import CONTENT_TYPE
from server.schemas.answers import Health, Version
from server.serving import Serving, ServingDep

router = APIRouter(tags=["operations"])

HEALTH: dict[int | str, dict[str, Any]] = {code: {"model": Health} for code in (200, 503)}
TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/health", responses=HEALTH)
async def get_health(serving: ServingDep) -> Response:
    """200 while requests are served, 503 otherwise; the body says what is wrong."""
    state = _health(serving)
    return _answer(state, state.ready)


@router.get("/health/live", responses=HEALTH)
async def get_live(serving: ServingDep) -> Response:
    """503 when the engine is given up and only a restart of the server helps."""
    state = _health(serving)
    return _answer(state, state.live)


@router.get("/health/ready", responses=HEALTH)
async def get_ready(serving: ServingDep) -> Response:
    """503 while requests should go to another replica: the engine loads, or the server stops."""
    state = _health(serving)
    return _answer(state, state.ready)


@router.get("/ping", response_class=Response, responses=TEXT)
async def ping() -> Response:
    """The HTTP server answers; says nothing of the engine."""
    return Response("pong", media_type="text/plain")


@router.get("/version")
async def get_version() -> Version:
    """The version of BiTA Serve."""
    return Version(version=version("bita-serve"))


@router.get("/metrics", response_class=Response, responses=TEXT)
async def get_metrics(serving: ServingDep) -> Response:
    """Every series, in Prometheus' text format."""
    return Response(serving.metrics.exposition(), headers={"content-type": CONTENT_TYPE})


def _health(serving: Serving) -> health.Health:
    return health.check(serving.client, serving.intake)


def _answer(state: health.Health, good: bool) -> Response:
    body: dict[str, Any] = {"status": "ok" if good else "unavailable", **asdict(state)}
    return JSONResponse(body, 200 if good else 503)
