"""What probes, scrapers and operators ask; open to all, with or without API keys."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from server import health
from server.metrics import CONTENT_TYPE
from server.serving import Serving, ServingDep

router = APIRouter(tags=["operations"])


@router.get("/health")
async def get_health(serving: ServingDep) -> Response:
    """200 while requests are served, 503 otherwise; the body says what is wrong."""
    state = _health(serving)
    return _answer(state, state.ready)


@router.get("/health/live")
async def get_live(serving: ServingDep) -> Response:
    """503 when the engine hangs and only a restart helps."""
    state = _health(serving)
    return _answer(state, state.live)


@router.get("/health/ready")
async def get_ready(serving: ServingDep) -> Response:
    """503 while requests should go to another replica."""
    state = _health(serving)
    return _answer(state, state.ready)


@router.get("/ping")
async def ping() -> Response:
    """The HTTP server answers; says nothing of the engine."""
    return Response("pong", media_type="text/plain")


@router.get("/version")
async def get_version() -> dict[str, str]:
    """The version of BiTA Serve."""
    return {"version": version("bita-serve")}


@router.get("/metrics")
async def get_metrics(serving: ServingDep) -> Response:
    """Every series, in Prometheus' text format."""
    return Response(serving.metrics.exposition(), headers={"content-type": CONTENT_TYPE})


def _health(serving: Serving) -> health.Health:
    return health.check(serving.client, serving.config.stall_seconds)


def _answer(state: health.Health, good: bool) -> Response:
    body: dict[str, Any] = {"status": "ok" if good else "unavailable", **asdict(state)}
    return JSONResponse(body, 200 if good else 503)
