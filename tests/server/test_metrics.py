"""What /metrics says of requests: how they ended, where their time went, which adapter drafted."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from engine.errors import ContextLengthExceeded, EngineDead, EngineOverloaded
from engine.request import Timing
from engine.stats import AdapterStats, EngineStats
from tests.server.conftest import MakeHttp
from tests.server.stub import ADAPTER, MODEL, StubClient
from tests.server.test_operations import samples
from tests.server.wire import CHAT, chat

HTTP = "bita_http_requests_total"


async def test_requests_are_counted_by_route_and_code(http: httpx.AsyncClient) -> None:
    await http.post(CHAT, json=chat())
    await http.post("/chat/completions", json=chat())
    await http.post(CHAT, json=chat(temperature=9))
    await http.get(f"/v1/models/{ADAPTER}")
    await http.get("/v1/models/none")
    for path in ("/v1/wp-admin", "/.env"):
        await http.get(path)
    found = {labels: n for (name, labels), n in (await samples(http)).items() if name == HTTP and n}
    assert found == {
        ("200", CHAT): 2,
        ("400", CHAT): 1,
        ("200", "/v1/models/{model}"): 1,
        ("404", "/v1/models/{model}"): 1,
        ("404", "other"): 2,
    }


async def test_probes_and_scrapes_do_not_count_as_requests(http: httpx.AsyncClient) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/metrics", "/ping", "/v1/stats"):
        await http.get(path)
    assert not any(n for (name, _), n in (await samples(http)).items() if name == HTTP)


async def test_a_stream_counts_by_what_it_broke_off_by(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.error = EngineDead("gone")
    response = await http.post(CHAT, json=chat(stream=True))
    assert response.status_code == 200
    found = await samples(http)
    assert found[HTTP, ("503", CHAT)] == 1
    assert found["vllm:request_success_total", ("error",)] == 1


async def test_a_client_that_left_aborts_its_generation(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.hang = True
    leaving = asyncio.create_task(http.post(CHAT, json=chat()))
    await client.arrivals.get()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert (await samples(http))["vllm:request_success_total", ("abort",)] == 1


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (EngineOverloaded("9 wait"), "429", "queue_full"),
        (ContextLengthExceeded("too long", "prompt"), "400", None),
    ],
)
async def test_what_the_engine_refuses_is_no_generation(
    http: httpx.AsyncClient, client: StubClient, error: Exception, code: str, reason: str | None
) -> None:
    client.pieces, client.error = (), error
    await http.post(CHAT, json=chat())
    found = await samples(http)
    assert found[HTTP, (code, CHAT)] == 1
    assert not any(n for (name, _), n in found.items() if name == "vllm:request_success_total")
    rejected = {labels: n for (name, labels), n in found.items() if name == "bita_rejected_total"}
    assert {labels: n for labels, n in rejected.items() if n} == ({(reason,): 1} if reason else {})


async def test_refusals_before_any_work_are_counted_by_reason(make_http: MakeHttp) -> None:
    async with make_http(api_keys=("one",), max_body_bytes=200) as http:
        await http.post(CHAT, json=chat())
        headers = {"authorization": "Bearer one"}
        await http.post(CHAT, json=chat(user="x" * 300), headers=headers)
        found = await samples(http)
    for reason in ("invalid_api_key", "body_too_large"):
        assert found["bita_rejected_total", (reason,)] == 1
    assert (found[HTTP, ("401", CHAT)], found[HTTP, ("413", CHAT)]) == (1, 1)


async def test_queue_and_prefill_are_what_the_engine_measured(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.timing = Timing(3.0, 0.5)
    await http.post(CHAT, json=chat())
    found = await samples(http)
    for name, seconds in (("queue", 3.0), ("prefill", 0.5)):
        assert found[f"vllm:request_{name}_time_seconds_sum", ()] == seconds
        assert found[f"vllm:request_{name}_time_seconds_count", ()] == 1
    assert found["vllm:request_decode_time_seconds_count", ()] == 1
    assert found["vllm:request_generation_tokens_sum", ()] == 11


async def test_an_engine_that_starts_has_no_age_and_is_not_ready(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.heartbeat_age, client.num_restarts = 4.5, 2
    found = await samples(http)
    assert found["bita_engine_step_age_seconds", ()] == 4.5
    assert found["bita_engine_restarts_total", ()] == 2
    client.is_ready = False
    found = await samples(http)
    assert found["bita_engine_ready", ()] == 0
    assert ("bita_engine_step_age_seconds", ()) not in found


async def test_adapters_are_told_apart(make_http: MakeHttp, client: StubClient) -> None:
    client.stats = EngineStats(
        adapters={
            "": AdapterStats(3, 1, 0, [6]),
            "quick": AdapterStats(5, 2, 1, [1, 0, 2]),
            "other": AdapterStats(0, 0, 4),
        }
    )
    found = await samples(http := make_http())
    assert found["bita_adapter_requests_total", ("quick",)] == 5
    assert found["bita_adapter_requests_running", ("(none)",)] == 1
    assert found["bita_acceptance_length_bucket", ("quick", "1.0")] == 1
    assert found["bita_acceptance_length_bucket", ("quick", "3.0")] == 3
    assert found["bita_acceptance_length_sum", ("quick",)] == 7
    assert found["bita_acceptance_length_count", ("(none)",)] == 6
    (lora,) = [key for key in found if key[0] == "vllm:lora_requests_info"]
    assert lora[1] == ("2", "quick", "quick,other")
    assert abs(found[lora] - time.time()) < 60
    assert found["vllm:cache_config_info", ("16", "16")] == 1
    assert f'model_name="{MODEL}"' in (await http.get("/metrics")).text
