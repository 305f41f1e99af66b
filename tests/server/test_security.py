"""Keys: every route there is, every near miss of a key, every way to dress a path up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from server.app import ROUTERS, create_app
from server.auth import OPEN_PATHS
from tests.server.stub import StubClient, model_folder, server_config

KEY, ADMIN = "a-key-that-is-long", "the-admin's-own"
NEAR_MISSES = [
    *(None, "", " ", KEY[:-1], KEY[1:], KEY + "x", KEY + "\t" + KEY, KEY.upper(), f'"{KEY}"'),
    *(f"{KEY},{KEY}", ADMIN[:-1], ADMIN + " x", "null", "None", "*", "Bearer", "0" * 10_000),
]


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    config = server_config(model_folder(tmp_path), api_keys=(KEY,), admin_key=ADMIN)
    return create_app(config, StubClient())


@pytest.fixture
def http(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


def guarded(app: FastAPI) -> list[tuple[str, str]]:
    """All routes of the application but the open ones, those FastAPI adds included."""
    found = [*app.routes, *(route for router in ROUTERS for route in router.routes)]
    routes = [route for route in found if isinstance(route, Route)]
    return [
        (method, route.path.replace("{model:path}", "m").replace("{name}", "n"))
        for route in routes
        if route.path not in OPEN_PATHS
        for method in route.methods or ()
    ]


async def test_no_near_miss_of_a_key_opens_any_route(app: FastAPI, http: httpx.AsyncClient) -> None:
    routes = guarded(app)
    assert {path for _, path in routes} >= {"/v1/chat/completions", "/openapi.json", "/docs"}
    for method, path in routes:
        for key in NEAR_MISSES:
            for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": f"{key}"}):
                sent = {} if key is None else headers
                response = await http.request(method, path, headers=sent)
                assert response.status_code == 401, (method, path, sent)
        twice = [("x-api-key", KEY), ("x-api-key", KEY)]
        assert (await http.request(method, path, headers=twice)).status_code == 401


DRESSED = [
    *(
        "//v1/models",
        "/v1//models",
        "/./v1/models",
        "/health/../v1/models",
        "/health/..%2fv1/models",
    ),
    *("/health/%2e%2e/v1/models", "/health;/v1/models", "/health/;/../v1/models"),
    *("/health%00", "/v1/models/", "/V1/MODELS", "/%76%31/models", "/v1/models%2f"),
    "/health?/v1/models/../..",
    *("/metrics/../v1/models", "/ping/../../v1/models", "/v1/v1/models", "/\\v1/models"),
    *("/health/live/../../v1/adapters", "/v1/health/../adapters", "/v1/adapters%2fx"),
]
TRUSTED_BY_OTHERS: list[dict[str, Any]] = [
    {"host": "server/health?"},
    {"host": "server/health#"},
    {"host": "server:80/ping?x="},
    {"host": "a@server/metrics"},
    {"x-original-url": "/health"},
    {"x-rewrite-url": "/health"},
    {"x-forwarded-prefix": "/health"},
    {"x-forwarded-path": "/health", "x-forwarded-host": "localhost"},
    {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1"},
    {"x-http-method-override": "OPTIONS"},
    {"script-name": "/health"},
]


@pytest.mark.parametrize("path", DRESSED)
async def test_no_spelling_of_a_path_opens_what_is_guarded(
    http: httpx.AsyncClient, path: str
) -> None:
    response = await http.get(path)
    # Open paths are answered, whatever is in the query; all else needs a key.
    assert response.status_code == (200 if path.startswith("/health?") else 401)


@pytest.mark.parametrize("headers", TRUSTED_BY_OTHERS)
async def test_no_header_opens_what_is_guarded(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for path in ("/v1/models", "/v1/adapters", "/v1/stats", "/openapi.json"):
        assert (await http.get(path, headers=headers)).status_code == 401


async def test_both_keys_in_one_request_open_what_each_opens(http: httpx.AsyncClient) -> None:
    headers = {"authorization": f"Bearer {KEY}", "x-api-key": ADMIN}
    for path in ("/v1/models", "/v1/adapters"):
        assert (await http.get(path, headers=headers)).status_code == 200
