"""What routers ask of a server behind them."""

from __future__ import annotations

import httpx
import pytest

from engine.errors import EngineDead
from server.routes import workers
from tests.server.conftest import MakeHttp
from tests.server.stub import MODEL, StubClient
from tests.server.wire import error_of


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
async def test_sizes_are_the_engines(http: httpx.AsyncClient, path: str) -> None:
    facts = (await http.get(path)).json()
    assert facts["served_model_name"] == MODEL
    assert facts["max_total_num_tokens"] == 16 * 16
    assert (facts["context_length"], facts["page_size"]) == (256, 16)


@pytest.mark.parametrize("path", ["/model_info", "/get_model_info"])
async def test_a_model_is_named_without_its_folder(http: httpx.AsyncClient, path: str) -> None:
    facts = (await http.get(path)).json()
    assert facts["model_path"] == MODEL
    assert facts["is_generation"] is True


async def test_a_token_is_generated(http: httpx.AsyncClient, client: StubClient) -> None:
    response = await http.get("/health_generate")
    assert response.status_code == 200
    (request,) = client.requests
    assert request.sampling.max_tokens == 1


async def test_none_generated_is_503(
    http: httpx.AsyncClient, client: StubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "GENERATE_SECONDS", 0.01)
    client.hang = True
    hung = await http.get("/health_generate")
    assert (hung.status_code, error_of(hung)["code"]) == (503, "unavailable")
    assert client.closed
    client.error = EngineDead("gone")
    assert (await http.get("/health_generate")).status_code == 503
    client.is_ready = False
    for path in ("/health_generate", "/server_info", "/model_info"):
        assert (await http.get(path)).status_code == 503


async def test_they_are_guarded_like_the_rest(make_http: MakeHttp) -> None:
    http = make_http(api_keys=("secret",))
    for path in ("/health_generate", "/server_info", "/model_info"):
        assert (await http.get(path)).status_code == 401
