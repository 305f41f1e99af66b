"""SGLang's router, as PyPI has it, in front of two of our servers."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.deploy.streams import broken, cached_tokens, chat, long_chat, results, start
from tests.served import Served, free_port, served

OPTIONS = ("--threads", "1", "--tree", "chain")
QUESTIONS = ["A table for two in Oakland, please.", "Which buses go to Fresno?", "Hello!"]

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.skipif(
        shutil.which("sglang-router") is None,
        reason="no sglang-router on PATH: `make test-deploy` installs it",
    ),
]


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[Served, Served]]:
    with served(*OPTIONS) as one, killable(*OPTIONS) as other:
        yield one, other


@contextmanager
def killable(*options: str) -> Iterator[Served]:
    """A server that need not end well."""
    with suppress(AssertionError), served(*options) as server:
        yield server


@contextmanager
def routed(policy: str, *workers: Served) -> Iterator[str]:
    """URL of a router that knows all its workers."""
    port = free_port()
    ours = ["--policy", policy, "--health-check-interval-secs", "1", "--log-level", "warn"]
    listens = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    urls = ["--worker-urls", *(worker.url for worker in workers)]
    url = f"http://127.0.0.1:{port}"
    with tempfile.NamedTemporaryFile() as log:
        command = ["sglang-router", "launch", *listens, *ours, *urls]
        with subprocess.Popen(command, stdout=log, stderr=log) as router:
            try:
                wait_for_workers(url, len(workers), Path(log.name))
                yield url
            finally:
                router.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    router.wait(20)
                router.kill()


def wait_for_workers(url: str, number: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(httpx.TransportError, ValueError):
            found = httpx.get(f"{url}/readiness", timeout=5).json()
            if found.get("healthy_workers") == number:
                return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def generated(server: Served) -> float:
    page = httpx.get(f"{server.url}/metrics").text
    (line,) = [at for at in page.splitlines() if at.startswith("vllm:generation_tokens_total{")]
    return float(line.rpartition(" ")[2])


def test_workers_are_known_by_what_they_answer(workers: tuple[Served, Served]) -> None:
    with routed("round_robin", *workers) as url:
        known = httpx.get(f"{url}/workers").json()["workers"]
        assert {worker["model_id"] for worker in known} == {"bita-concierge"}
        for path in ("/get_model_info", "/v1/models"):
            assert "bita-concierge" in httpx.get(f"{url}{path}").text
        assert httpx.get(f"{url}/health_generate").status_code == 200


def test_streams_are_whole_and_answers_the_servers_own(workers: tuple[Served, Served]) -> None:
    one, other = workers
    with routed("round_robin", *workers) as url:
        before = [generated(worker) for worker in workers]
        streams = results(start(url, [chat(question) for question in QUESTIONS * 4]))
        assert broken(streams) == []
        direct = results(start(one.url, [chat(question) for question in QUESTIONS]))
        assert [stream.text for stream in streams] == [stream.text for stream in direct] * 4
        assert generated(one) > before[0]
        assert generated(other) > before[1]


def test_conversations_stay_where_their_beginning_is_cached(
    workers: tuple[Served, Served],
) -> None:
    with routed("cache_aware", *workers) as url:
        for user in range(4):
            _, *later = cached_tokens(url, f"I am user {user}, with a long wish. " * 6)
            assert min(later) >= 16


def test_a_killed_worker_breaks_its_own_streams_alone(workers: tuple[Served, Served]) -> None:
    _, other = workers
    with routed("round_robin", *workers) as url:
        streams = start(url, [long_chat(f"{n} buses", 300) for n in range(6)])
        while generated(other) == 0 or not any(stream.running() for stream in streams):
            time.sleep(0.1)
        time.sleep(1)
        other.process.kill()
        answers = results(start(url, [chat(question) for question in QUESTIONS * 4]))
        assert broken(answers) == []
        assert len(broken(results(streams))) <= 3
