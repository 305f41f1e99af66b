"""What probes and scrapers see, and the list of models."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.errors import EngineDead
from engine.stats import EngineStats
from tests.server.stub import ADAPTER, MODEL, StubClient
from tests.server.wire import CHAT, chat, error_of

OPENMETRICS = "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.9,*/*;q=0.1"

NAMES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:request_success_total",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:spec_decode_num_drafts_total",
    "vllm:spec_decode_num_draft_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_per_pos_total",
    "bita_draft_tokens_total",
    "bita_accepted_tokens_total",
    "bita_acceptance_length_bucket",
    "bita_rows_total",
    "bita_step_seconds_total",
    "bita_forwards_total",
    "bita_engine_step_age_seconds",
    "bita_engine_restarts_total",
    "bita_decode_steps_total",
    "bita_adapter_requests_total",
    "bita_adapter_requests_running",
    "bita_http_requests_total",
    "bita_rejected_total",
    "vllm:request_queue_time_seconds_bucket",
    "vllm:request_prefill_time_seconds_bucket",
    "vllm:request_decode_time_seconds_bucket",
}
CONSTANT = {"bita_engine_ready", "bita_build_info", "vllm:cache_config_info"}
"""Those that are 1."""


async def samples(http: httpx.AsyncClient) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and label values (the model's name aside) -> value."""
    response = await http.get("/metrics")
    found = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            assert sample.labels.pop("model_name") == MODEL
            found[sample.name, tuple(sample.labels.values())] = sample.value
    return found


async def test_every_series_is_there_from_the_start(http: httpx.AsyncClient) -> None:
    found = await samples(http)
    assert {name for name, _ in found} >= NAMES | CONSTANT
    for (name, _), value in found.items():
        assert value == (name in CONSTANT) or name.endswith("_created")


async def test_names_keep_their_colon_whatever_is_asked_for(http: httpx.AsyncClient) -> None:
    response = await http.get("/metrics", headers={"accept": OPENMETRICS})
    assert response.headers["content-type"].startswith("text/plain")
    assert "escaping" not in response.headers["content-type"]
    assert "\nvllm:num_requests_waiting{" in response.text
    assert "vllm_" not in response.text


async def test_requests_are_counted(http: httpx.AsyncClient, client: StubClient) -> None:
    await http.post(CHAT, json=chat())
    client.error = EngineDead("gone")
    await http.post(CHAT, json=chat())
    found = await samples(http)
    assert found["vllm:request_success_total", ("stop",)] == 1
    assert found["vllm:request_success_total", ("error",)] == 1
    assert found["vllm:prompt_tokens_total", ()] == 38
    assert found["vllm:generation_tokens_total", ()] == 22
    assert found["vllm:time_to_first_token_seconds_count", ()] == 2
    assert found["vllm:inter_token_latency_seconds_count", ()] == 2 * len(" world")
    assert found["vllm:e2e_request_latency_seconds_count", ()] == 1


async def test_the_engines_counters_are_read_when_scraped(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    stats = EngineStats(num_running=2, kv_cache_usage=0.5, num_forwards=4)
    stats.step_seconds["draft"] = 0.25
    stats.rows["mask"] = 9
    stats.speculation.add(drafted=[1, 1, 3, 4, 4], accepted=[1, 3])
    stats.speculation.add(drafted=[], accepted=[])
    stats.speculation.steps["rested"] = 7
    stats.speculation.seconds, stats.speculation.plain_seconds = 2.0, 3.0
    client.stats = stats
    found = await samples(http)
    assert found["vllm:num_requests_running", ()] == 2
    assert found["vllm:kv_cache_usage_perc", ()] == 0.5
    assert found["bita_forwards_total", ()] == 4
    assert found["bita_step_seconds_total", ("draft",)] == 0.25
    assert found["bita_rows_total", ("mask",)] == 9
    assert found["bita_decode_steps_total", ("rested",)] == 7
    assert found["bita_decode_seconds_total", ()] == 2.0
    assert found["bita_plain_decode_seconds_total", ()] == 3.0
    assert found["vllm:spec_decode_num_drafts_total", ()] == 1
    assert found["vllm:spec_decode_num_accepted_tokens_per_pos_total", ("1",)] == 1
    drafted = {"bita": 3, "ngram": 1, "prediction": 2}
    accepted = {"bita": 2, "ngram": 1, "prediction": 0}
    for source in drafted:
        assert found["bita_draft_tokens_total", (source,)] == drafted[source]
        assert found["bita_accepted_tokens_total", (source,)] == accepted[source]


@pytest.mark.parametrize(
    ("is_ready", "failed", "expected"),
    [
        (True, False, {"/health": 200, "/health/live": 200, "/health/ready": 200}),
        (False, False, {"/health": 503, "/health/live": 200, "/health/ready": 503}),
        (False, True, {"/health": 503, "/health/live": 503, "/health/ready": 503}),
    ],
    ids=["well", "starting", "given up"],
)
async def test_health_tells_alive_from_ready(
    http: httpx.AsyncClient,
    client: StubClient,
    is_ready: bool,
    failed: bool,
    expected: dict[str, int],
) -> None:
    client.is_ready, client.heartbeat_age = is_ready, 7.0
    if failed:
        client.failed.set()
    assert {path: (await http.get(path)).status_code for path in expected} == expected
    body = (await http.get("/health")).json()
    assert (body["live"], body["ready"], body["heartbeat_age"]) == (not failed, is_ready, 7.0)


async def test_models_are_the_base_and_its_adapters(http: httpx.AsyncClient) -> None:
    body = (await http.get("/v1/models")).json()
    assert body["object"] == "list"
    assert [(model["id"], model["parent"]) for model in body["data"]] == [
        (MODEL, None),
        (ADAPTER, MODEL),
    ]
    one = (await http.get(f"/v1/models/{ADAPTER}")).json()
    assert one == body["data"][1]
    missing = await http.get("/v1/models/other")
    assert missing.status_code == 404
    assert error_of(missing)["code"] == "model_not_found"


async def test_ping_and_version(http: httpx.AsyncClient) -> None:
    assert (await http.get("/ping")).text == "pong"
    assert list((await http.get("/version")).json()) == ["version"]
