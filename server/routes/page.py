"""GET / and GET /v1/stats: a page to look at, and the figures it shows of the server."""

from __future__ import annotations

import time

from fastapi import APIRouter
from starlette.responses import Response

from server.auth import STATS_PATH
from server.body import JsonRoute
from server.page import page
from server.schemas.stats import Stats
from server.serving import ServingDep

router = APIRouter(tags=["page"], route_class=JsonRoute)


@router.get("/", include_in_schema=False)
async def get_page() -> Response:
    """The page. It holds no secrets: what it asks for, it asks as any client does."""
    html, policy = page()
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return Response(html, headers=headers)


@router.get(STATS_PATH)
async def get_stats(serving: ServingDep) -> Stats:
    """What the server does now, and totals to take differences of."""
    engine, totals = serving.client.stats, serving.metrics.totals()
    lengths = engine.speculation.acceptance_lengths
    return Stats(
        now=time.time(),
        num_running=engine.num_running,
        num_waiting=engine.num_waiting,
        kv_cache_usage=engine.kv_cache_usage,
        generation_tokens=int(totals["vllm:generation_tokens_total"]),
        first_tokens=int(totals["vllm:time_to_first_token_seconds_count"]),
        first_token_seconds=totals["vllm:time_to_first_token_seconds_sum"],
        decoding_forwards=sum(lengths),
        decoded_tokens=sum(n * length for length, n in enumerate(lengths, start=1)),
    )
