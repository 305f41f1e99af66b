"""nginx with our configuration, before servers that do as the test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.front import nginx
from tests.deploy.replica import CHUNKS, Replica, serving, stop
from tests.deploy.tools import need

pytestmark = pytest.mark.deploy

CHAT = "/v1/chat/completions"


@pytest.fixture
def servers() -> Iterator[list[Replica]]:
    need("nginx")
    made = [Replica(), Replica()]
    with serving(*made):
        yield made


@pytest.fixture
def front(servers: list[Replica], tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        nginx(tmp_path, [server.address for server in servers]) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


def test_a_chunk_arrives_before_the_next_one_is_written(
    front: httpx.Client, servers: list[Replica]
) -> None:
    with front.stream("POST", "/stream") as response:
        arriving = response.iter_raw()
        assert next(arriving) == CHUNKS[0]
        for server in servers:
            server.release.set()
        assert b"".join(arriving) == CHUNKS[1]


def test_a_server_that_is_busy_gets_fewer_requests(
    front: httpx.Client, servers: list[Replica]
) -> None:
    with front.stream("POST", "/stream"):
        (busy,) = (server for server in servers if server.asked)
        for _ in range(4):
            assert front.post(CHAT).status_code == 200
        assert busy.asked == ["/stream"]
        busy.release.set()


def test_a_server_that_is_gone_is_not_missed(front: httpx.Client, servers: list[Replica]) -> None:
    for _ in range(4):
        front.post(CHAT)
    stop(servers[0])
    assert [front.post(CHAT).status_code for _ in range(20)] == [200] * 20


def test_what_has_begun_to_arrive_is_not_asked_for_again(
    front: httpx.Client, servers: list[Replica]
) -> None:
    with front.stream("POST", "/cut") as response:
        received = response.iter_raw()
        assert next(received) == CHUNKS[0]
        with pytest.raises(httpx.RemoteProtocolError):
            list(received)
    assert sum(len(server.asked) for server in servers) == 1


def test_a_server_that_stops_sends_new_requests_to_the_other(
    front: httpx.Client, servers: list[Replica]
) -> None:
    servers[0].status = 503
    assert [front.post(CHAT).status_code for _ in range(10)] == [200] * 10
    assert len(servers[0].asked) <= 5


@pytest.mark.parametrize("status", [429, 503])
def test_clients_are_told_by_the_servers_when_to_try_again(
    front: httpx.Client, servers: list[Replica], status: int
) -> None:
    for server in servers:
        server.status = status
    response = front.post(CHAT)
    assert (response.status_code, response.headers["retry-after"]) == (status, "7")


def test_without_any_server_the_error_is_worded_as_ours_are(
    front: httpx.Client, servers: list[Replica]
) -> None:
    for server in servers:
        stop(server)
    response = front.post(CHAT)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["error"]["code"] == "unavailable"


def test_a_body_may_be_as_large_as_the_servers_allow(
    front: httpx.Client, servers: list[Replica]
) -> None:
    assert front.post(CHAT, content=bytes(4 * 1024**2)).status_code == 200
    response = front.post(CHAT, content=bytes(4 * 1024**2 + 1))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
    assert sum(len(server.asked) for server in servers) == 1


def test_request_ids_and_keys_pass_and_nobody_says_where_they_come_from(
    front: httpx.Client,
) -> None:
    given = {"x-request-id": "mine", "authorization": "Bearer k", "x-forwarded-for": "10.9.8.7"}
    headers = front.post(CHAT, headers=given).headers
    assert headers["asked-x-request-id"] == "mine"
    assert headers["asked-authorization"] == "Bearer k"
    assert headers["asked-x-forwarded-for"] == "127.0.0.1"


@pytest.mark.parametrize(
    "path", ["/metrics", "/v1/metrics", "//metrics", "/%6detrics", "/metrics/"]
)
def test_metrics_are_not_shown(front: httpx.Client, servers: list[Replica], path: str) -> None:
    # As a whole address: httpx takes //metrics for a host.
    response = front.get(f"{str(front.base_url).rstrip('/')}{path}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"
    assert not servers[0].asked + servers[1].asked
