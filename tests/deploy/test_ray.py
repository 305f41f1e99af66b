"""Ray Serve with the configuration of deploy/ray, two replicas on this machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.ray_cluster import PACKAGES, Cluster, ray_cluster
from tests.deploy.streams import (
    CHAT,
    broken,
    cached_tokens,
    chat,
    long_chat,
    results,
    start,
    start_anew,
)
from tests.served import served

CONFIG = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"
ONE_THREAD = ["--threads", "1", "--tree", "chain"]
QUESTIONS = [
    "I want to find a restaurant in San Jose.",
    "Hi, can you help me book a bus?",
    "Find me a bus to Fresno tomorrow.",
    "A table for four, please, and something Italian.",
]

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.skipif(
        not PACKAGES and importlib.util.find_spec("ray") is None,
        reason="no Ray: `make test-deploy` installs it, or pip install 'bita-serve[ray]'",
    ),
]


def small(url: str) -> dict[str, Any]:
    """Our configuration with two replicas that share a core, each with little room."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["http_options"]["port"] = int(url.rpartition(":")[2])
    application = config["applications"][0]
    application["args"]["options"] += ONE_THREAD
    for deployment in application["deployments"]:
        del deployment["autoscaling_config"]
        deployment.update(num_replicas=1, graceful_shutdown_timeout_s=240)
    servers = application["deployments"][1]
    servers.update(num_replicas=2, max_ongoing_requests=6, max_queued_requests=4)
    servers["ray_actor_options"] = {"num_cpus": 0.5}
    return config


@pytest.fixture(scope="module")
def plain() -> list[str]:
    """Answers of a server without Ray."""
    with served(*ONE_THREAD) as server:
        return [answer_of(server.url, question) for question in QUESTIONS]


@pytest.fixture(scope="module")
def cluster(plain: list[str]) -> Iterator[Cluster]:
    """Two replicas; `plain`'s server has ended before."""
    with ray_cluster() as cluster:
        cluster.deploy(small(cluster.url))
        yield cluster


def answer_of(url: str, question: str) -> str:
    response = httpx.post(url + CHAT, json=chat(question), timeout=120)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def by_replica(cluster: Cluster, series: str) -> list[float]:
    """What every replica's metrics say."""
    response = httpx.get(f"{cluster.url}/metrics", timeout=30)
    if response.status_code == 503:  # while a replica is full, or gone
        return []
    families = text_string_to_metric_families(response.text)
    samples = [sample for family in families for sample in family.samples if sample.name == series]
    assert len({sample.labels["replica"] for sample in samples}) == len(samples)
    return [sample.value for sample in samples]


def generated(cluster: Cluster) -> float:
    return sum(by_replica(cluster, "vllm:generation_tokens_total"))


def running(cluster: Cluster) -> float:
    return sum(by_replica(cluster, "vllm:num_requests_running"))


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_answers_are_those_of_a_plain_server(cluster: Cluster, plain: list[str]) -> None:
    assert [answer_of(cluster.url, question) for question in QUESTIONS] == plain


def test_streams_are_whole_and_spread_over_the_replicas(cluster: Cluster) -> None:
    wait_for(lambda: len(by_replica(cluster, "vllm:generation_tokens_total")) == 2)
    before = by_replica(cluster, "vllm:generation_tokens_total")
    bodies = [long_chat(f"{number}: {QUESTIONS[number % 4]}", 40) for number in range(8)]
    streams = results(start(cluster.url, bodies))
    assert broken(streams) == []
    wait_for(lambda: generated(cluster) == sum(before) + 8 * 40)
    after = by_replica(cluster, "vllm:generation_tokens_total")
    assert all(many > few for many, few in zip(after, before, strict=True))


def test_a_conversation_stays_where_its_beginning_is_cached(cluster: Cluster) -> None:
    for user in ("Ada", "Bob", "Eve"):
        _, *later = cached_tokens(cluster.url, f"I am {user} and need a table. " * 4)
        assert min(later) >= 16


def test_who_leaves_is_forgotten_by_the_engine(cluster: Cluster) -> None:
    body = {**long_chat("Tell me all.", 1500), "stream": True}
    with httpx.stream("POST", cluster.url + CHAT, json=body, timeout=60) as response:
        lines = response.iter_lines()  # whose end would be the response's
        next(lines)
        wait_for(lambda: running(cluster) == 1, seconds=10)
    wait_for(lambda: running(cluster) == 0, seconds=10)


def test_more_than_may_wait_get_503_and_when_to_come_back(cluster: Cluster) -> None:
    streams = results(start(cluster.url, [long_chat(f"{n} tables", 400) for n in range(24)]))
    refused = [stream for stream in streams if stream.status == 503]
    assert broken(stream for stream in streams if stream not in refused) == []
    assert len(refused) in range(1, 13)
    for stream in refused:
        assert int(stream.headers["retry-after"]) >= 1
        assert stream.errors[0]["type"] == "server_error"
        assert stream.errors[0]["code"] == "unavailable"


def test_a_killed_replica_breaks_its_own_streams_alone_and_is_replaced(cluster: Cluster) -> None:
    before = cluster.pids("Server")
    streams = start(cluster.url, [long_chat(f"{n} buses", 1500) for n in range(6)])
    wait_for(lambda: min(by_replica(cluster, "vllm:num_requests_running"), default=0) > 0)
    victim = min(before)
    engines = children_of(victim)
    os.kill(victim, signal.SIGKILL)
    assert all(answer_of(cluster.url, question) for question in QUESTIONS)
    ended = results(streams)
    lost = broken(ended)
    assert 0 < len(lost) < 6
    for stream in lost:
        # Told so in the stream, which ends as streams do.
        assert (stream.status, stream.ended) == (200, 1)
        assert [error["code"] for error in stream.errors] == ["unavailable"]
    wait_for(lambda: victim not in (now := cluster.pids("Server")) and len(now) == 2)
    assert engines
    wait_for(lambda: not any(map(is_alive, engines)))


def test_a_new_configuration_loses_no_stream(cluster: Cluster) -> None:
    before = cluster.pids("Server") | cluster.pids("Ingress")
    renewed = Event()
    bodies = [long_chat(f"{n} hotels", 500) for n in range(4)]
    streams = start_anew(cluster.url, bodies, until=renewed)
    wait_for(lambda: running(cluster) == 4)
    config = small(cluster.url)
    config["applications"][0]["args"]["options"] += ["--max-num-seqs", "16"]
    cluster.submit(config)
    while not cluster.is_running():
        assert answer_of(cluster.url, QUESTIONS[0])
    renewed.set()
    ended = [stream for one in streams for stream in one.result(timeout=240)]
    assert len(ended) >= 4
    assert broken(ended) == []
    assert not before & (cluster.pids("Server") | cluster.pids("Ingress"))


def test_replicas_come_and_go_with_the_requests(cluster: Cluster) -> None:
    config = small(cluster.url)
    servers = config["applications"][0]["deployments"][1]
    del servers["num_replicas"]
    servers["autoscaling_config"] = {
        **{"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2},
        **{"upscale_delay_s": 1, "downscale_delay_s": 3, "metrics_interval_s": 1},
    }
    cluster.deploy(config)
    wait_for(lambda: len(cluster.pids("Server")) == 1)
    streams = start(cluster.url, [long_chat(f"{n} trains", 900) for n in range(4)])
    wait_for(lambda: len(cluster.pids("Server")) == 2, seconds=120)
    assert broken(results(streams)) == []
    wait_for(lambda: len(cluster.pids("Server")) == 1, seconds=120)


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(child) for child in found.stdout.split()]


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
