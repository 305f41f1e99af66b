"""/v1/adapters: who may, which folders, and what requests find afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.errors import AdapterRefused, EngineDead, NoFreeSlot
from server.auth import ADMIN_PATH
from server.routes import adapters
from tests.server.conftest import MakeHttp
from tests.server.stub import ADAPTER, MODEL, StubClient
from tests.server.wire import CHAT, chat, completion, error_of

ADMIN = {"authorization": "Bearer admin"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter folder with an adapter in it, and another beside it."""
    for path in ("adapters/fast", "outside"):
        (tmp_path / path).mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / path / name).touch()
    return tmp_path / "adapters"


@pytest.fixture
def http(make_http: MakeHttp, folder: Path) -> httpx.AsyncClient:
    http = make_http(admin_key="admin", adapter_dir=folder)
    http.headers.update(ADMIN)
    return http


async def load(http: httpx.AsyncClient, name: Any = "new", path: Any = "fast") -> httpx.Response:
    return await http.post(ADMIN_PATH, json={"name": name, "path": path})


async def ids(http: httpx.AsyncClient, path: str = "/v1/models") -> list[str]:
    return [item["id"] for item in (await http.get(path)).json()["data"]]


async def test_an_adapter_is_loaded_used_listed_and_unloaded(
    http: httpx.AsyncClient, client: StubClient, folder: Path
) -> None:
    missing = await http.post(CHAT, json=chat(model="new"))
    assert missing.status_code == 404

    response = await load(http)
    assert response.status_code == 200
    new = {"id": "new", "object": "adapter", "path": "fast", "default": False}
    assert response.json() == new
    assert client.info.adapters["new"] == str(folder / "fast")
    listed = (await http.get(ADMIN_PATH)).json()
    first = {"id": ADAPTER, "object": "adapter", "path": f"adapters/{ADAPTER}", "default": True}
    assert listed == {"object": "list", "data": [first, new]}
    assert await ids(http) == [MODEL, ADAPTER, "new"]
    assert (await http.get("/v1/models/new")).json()["parent"] == MODEL

    assert (await http.post(CHAT, json=chat(model="new"))).status_code == 200
    assert client.requests[-1].adapter == "new"

    response = await http.delete(f"{ADMIN_PATH}/new")
    assert response.json() == {"id": "new", "object": "adapter", "deleted": True}
    assert await ids(http) == [MODEL, ADAPTER]
    after = await http.post(CHAT, json=chat(model="new"))
    assert after.status_code == 404
    assert error_of(after) == error_of(missing)
    assert error_of(after)["code"] == "model_not_found"


async def test_the_first_adapter_may_go_and_come_back(http: httpx.AsyncClient) -> None:
    await http.delete(f"{ADMIN_PATH}/{ADAPTER}")
    assert (await http.get(ADMIN_PATH)).json()["data"] == []
    assert (await http.post(CHAT, json=chat())).status_code == 200
    assert (await load(http, ADAPTER)).json()["default"]


async def test_a_deeper_folder_and_a_link_inside_are_fine(
    http: httpx.AsyncClient, folder: Path
) -> None:
    (folder / "team" / "v1").mkdir(parents=True)
    (folder / "latest").symlink_to(folder / "fast")
    assert (await load(http, "a", "team/v1")).json()["path"] == "team/v1"
    assert (await load(http, "b", "latest")).json()["path"] == "fast"


KEYS = [None, "Bearer wrong", "Bearer ", "Bearer admi", "Bearer admin2", "admin", "Basic admin"]


def calls(http: httpx.AsyncClient, headers: dict[str, str]) -> list[Any]:
    return [
        http.get(ADMIN_PATH, headers=headers),
        http.post(ADMIN_PATH, json={"name": "new", "path": "fast"}, headers=headers),
        http.post(ADMIN_PATH, content=b"{", headers=headers),
        http.delete(f"{ADMIN_PATH}/{ADAPTER}", headers=headers),
        http.put(f"{ADMIN_PATH}/nothing/here", headers=headers),
        http.get(f"{ADMIN_PATH}/", headers=headers),
    ]


@pytest.mark.parametrize("api_keys", [(), ("api",)])
@pytest.mark.parametrize("authorization", [*KEYS, "Bearer api"])
async def test_only_the_admin_key_opens(
    make_http: MakeHttp,
    folder: Path,
    client: StubClient,
    api_keys: tuple[str, ...],
    authorization: str | None,
) -> None:
    http = make_http(admin_key="admin", adapter_dir=folder, api_keys=api_keys)
    headers = {} if authorization is None else {"authorization": authorization}
    for call in calls(http, headers):
        response = await call
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert error_of(response)["code"] == "invalid_api_key"
        assert "admin key" in error_of(response)["message"]
    assert list(client.info.adapters) == [ADAPTER]
    assert (await http.get(ADMIN_PATH, headers=ADMIN)).status_code == 200


@pytest.mark.parametrize("api_keys", [(), ("api",)])
async def test_without_an_admin_key_nobody_may(
    make_http: MakeHttp, folder: Path, client: StubClient, api_keys: tuple[str, ...]
) -> None:
    http = make_http(adapter_dir=folder, api_keys=api_keys)
    for authorization in ("Bearer api", "Bearer ", "Bearer None", "Bearer admin"):
        for call in calls(http, {"authorization": authorization}):
            response = await call
            assert response.status_code == 403
            assert error_of(response)["code"] == "admin_disabled"
            assert "--admin-key" in error_of(response)["message"]
    assert list(client.info.adapters) == [ADAPTER]


async def test_the_admin_key_is_no_api_key(make_http: MakeHttp) -> None:
    http = make_http(admin_key="admin", api_keys=("api",))
    assert (await http.get("/v1/models", headers=ADMIN)).status_code == 401


def test_all_routes_lie_below_what_is_guarded() -> None:
    paths = [getattr(route, "path", "") for route in adapters.router.routes]
    assert paths
    assert all(path == ADMIN_PATH or path.startswith(f"{ADMIN_PATH}/") for path in paths)


async def test_without_a_folder_nothing_is_loaded_but_all_can_be_unloaded(
    make_http: MakeHttp,
) -> None:
    http = make_http(admin_key="admin")
    http.headers.update(ADMIN)
    response = await load(http)
    assert response.status_code == 403
    assert error_of(response)["code"] == "adapter_dir_unset"
    assert "--adapter-dir" in error_of(response)["message"]
    assert await ids(http, ADMIN_PATH) == [ADAPTER]
    assert (await http.delete(f"{ADMIN_PATH}/{ADAPTER}")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "..",
        "fast/../../outside",
        "fast/..",
        "./../outside",
        "/etc",
        "//etc",
        "/",
        "~",
        "nothing",
        "fast/adapter_config.json",
        "%2e%2e/outside",
        "..%2foutside",
        "..\\outside",
        "file:///etc",
        "http://127.0.0.1/x",
        "fast\0",
        "\0",
        "fast\n",
        "x" * 4096,
        "x/" * 2000,
        "link",
        "deep/link",
        "link/sub",
        "linked-file",
        "linked-upwards",
        "loop",
        "dangling",
    ],
)
async def test_no_path_leads_out_of_the_folder(
    http: httpx.AsyncClient, client: StubClient, folder: Path, path: str
) -> None:
    outside = folder.parent / "outside"
    (outside / "sub").mkdir()
    (folder / "deep").mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "deep" / "link").symlink_to("../../outside")
    (folder / "linked-file").mkdir()
    (folder / "linked-file" / "adapter_config.json").symlink_to(outside / "adapter_config.json")
    (folder / "linked-upwards").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    response = await load(http, path=path)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["code"]) == ("path", "invalid_value")
    assert str(folder.parent) not in error["message"]
    assert list(client.info.adapters) == [ADAPTER]


async def test_a_folder_whose_name_begins_alike_is_outside(
    http: httpx.AsyncClient, folder: Path
) -> None:
    twin = folder.with_name("adapters-2")
    twin.mkdir()
    (folder / "twin").symlink_to(twin)
    assert (await load(http, path="twin")).status_code == 400


async def test_the_folder_itself_may_be_a_link(
    make_http: MakeHttp, folder: Path, client: StubClient
) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    http = make_http(admin_key="admin", adapter_dir=link)
    http.headers.update(ADMIN)
    assert (await load(http)).json()["path"] == "fast"
    assert client.info.adapters["new"] == str(folder / "fast")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"path": "fast"}, "name", "missing_required_parameter"),
        ({"name": "new"}, "path", "missing_required_parameter"),
        ({"name": 1, "path": "fast"}, "name", "invalid_type"),
        ({"name": None, "path": "fast"}, "name", "invalid_type"),
        ({"name": "new", "path": ["fast"]}, "path", "invalid_type"),
        ({"name": "new", "path": ""}, "path", "invalid_value"),
        ({"name": "new", "path": "x" * 4097}, "path", "invalid_value"),
        ({"name": "new", "path": "fast", "load_inplace": True}, None, "unknown_parameter"),
        *(
            ({"name": name, "path": "fast"}, "name", "invalid_value")
            for name in ("", ".", "..", ".a", "a b", "a/b", "a\n", "é", "x" * 65, "a\0", MODEL)
        ),
    ],
)
async def test_a_bad_body_names_its_field(
    http: httpx.AsyncClient, client: StubClient, body: dict[str, Any], param: str, code: str
) -> None:
    response = await http.post(ADMIN_PATH, json=body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["code"]) == (param or "load_inplace", code)
    assert list(client.info.adapters) == [ADAPTER]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"fast"', b"null", b"\xff"])
async def test_a_body_that_is_no_object_is_refused(http: httpx.AsyncClient, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = await http.post(ADMIN_PATH, content=content, headers=headers)
    assert response.status_code == 400
    error_of(response)


@pytest.mark.parametrize("field", ["name", "path"])
async def test_half_a_character_is_refused(http: httpx.AsyncClient, field: str) -> None:
    body = json.dumps({"name": "new", "path": "fast", field: "\ud800"})
    headers = {"content-type": "application/json"}
    response = await http.post(ADMIN_PATH, content=body, headers=headers)
    assert response.status_code == 400
    assert error_of(response)["param"] == field


async def test_a_name_is_given_once(http: httpx.AsyncClient) -> None:
    response = await load(http, ADAPTER)
    assert response.status_code == 409
    error = error_of(response)
    assert (error["param"], error["code"]) == ("name", "adapter_exists")


@pytest.mark.parametrize("name", ["nobody", MODEL, "%00", "%ff"])
async def test_what_is_not_loaded_cannot_be_unloaded(http: httpx.AsyncClient, name: str) -> None:
    response = await http.delete(f"{ADMIN_PATH}/{name}")
    assert response.status_code == 404
    error = error_of(response)
    assert (error["param"], error["code"]) == ("name", "model_not_found")


async def test_what_the_engine_refuses_is_told_without_the_servers_paths(
    http: httpx.AsyncClient, client: StubClient, folder: Path
) -> None:
    where = folder / "fast" / "adapter_config.json"
    client.refusal = AdapterRefused(f"{where} is missing: not a BiTA adapter folder", "path")
    response = await load(http)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["code"]) == ("path", "invalid_adapter")
    assert error["message"].startswith("fast/adapter_config.json is missing")

    client.refusal = NoFreeSlot("all 4 adapter slots are taken")
    response = await load(http)
    assert response.status_code == 409
    assert error_of(response)["code"] == "no_free_slot"

    client.refusal = EngineDead("gone")
    response = await load(http)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


async def test_while_the_engine_is_away_nothing_changes(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.is_ready = False
    assert (await load(http)).status_code == 503
    assert (await http.delete(f"{ADMIN_PATH}/{ADAPTER}")).status_code == 503
    assert await ids(http, ADMIN_PATH) == [ADAPTER]


async def test_completions_find_it_too(http: httpx.AsyncClient, client: StubClient) -> None:
    await load(http)
    await http.post("/v1/completions", json=completion(model="new"))
    assert client.requests[-1].adapter == "new"
