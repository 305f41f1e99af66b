"""With and without /v1: one route, one guard."""

from __future__ import annotations

import httpx
import pytest
from fastapi.routing import APIRoute

from server.app import ROUTERS
from server.auth import ADMIN_PATH, OPEN_PATHS, STATS_PATH
from server.body import JsonRoute
from tests.server.conftest import MakeHttp
from tests.server.stub import ADAPTER, MODEL
from tests.server.wire import CHAT, chat

ROUTES = [
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods
]
KEYS = {"api_keys": ("key",), "admin_key": "admin"}


def other(path: str) -> str:
    """A route's path in its other spelling; the page has none."""
    if path == "/":
        return path
    return path.removeprefix("/v1") if path.startswith("/v1/") else f"/v1{path}"


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_both_spellings_are_guarded_alike(
    make_http: MakeHttp, method: str, path: str
) -> None:
    path = path.replace("{model:path}", MODEL).replace("{name}", "none")
    for_admin = path.startswith((ADMIN_PATH, STATS_PATH))
    async with make_http(**KEYS) as http:
        for spelling in (path, other(path)):
            for key, opens in (("key", not for_admin), ("admin", for_admin)):
                headers = {"authorization": f"Bearer {key}"}
                response = await http.request(method, spelling, headers=headers)
                guarded = response.status_code == 401
                assert guarded == (not opens and path not in OPEN_PATHS), spelling
            bare = await http.request(method, spelling)
            assert (bare.status_code == 401) == (path not in OPEN_PATHS), spelling


async def test_both_spellings_answer_alike(http: httpx.AsyncClient) -> None:
    for path in ("/v1/models", f"/v1/models/{ADAPTER}", "/version", "/ping", "/health/ready"):
        one, two = await http.get(path), await http.get(other(path))
        assert one.status_code == two.status_code == 200
        assert len(one.content) == len(two.content)
    assert (await http.post(other(CHAT), json=chat())).status_code == 200


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v2/models", "/v1/v1/models", "/x", "/chat"])
async def test_no_other_path_means_anything(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404


async def test_a_models_name_may_have_slashes(make_http: MakeHttp) -> None:
    async with make_http(served_model_names=("org/model", "a/v1/b")) as http:
        for name in ("org/model", "a/v1/b"):
            for prefix in ("/v1/models/", "/models/"):
                assert (await http.get(prefix + name)).json()["id"] == name
            assert (await http.get(f"/v1/models/{name}/")).status_code == 404


def test_every_body_is_strict_json() -> None:
    routes = [r for router in ROUTERS for r in router.routes if isinstance(r, APIRoute)]
    assert {r.path for r in routes if r.body_field} == {
        r.path for r in routes if r.body_field and isinstance(r, JsonRoute)
    }


async def test_every_answer_has_its_time_and_id(http: httpx.AsyncClient) -> None:
    for response in (
        await http.get("/health"),
        await http.get("/nothing"),
        await http.post(CHAT, json=chat()),
        await http.post(CHAT, json=chat(stream=True)),
        await http.post(CHAT, json={}),
    ):
        assert int(response.headers["openai-processing-ms"]) >= 0
        assert response.headers["x-request-id"]
