"""A server under thousands of requests, a third of them left early: nothing is kept of any."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import factories, grammars
from tests.served import Served, served

pytestmark = pytest.mark.slow

PATH = "/v1/completions"
SECONDS = 120.0
ROOM, SEQUENCES = 64, 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = grammars.model_folder(tmp_path_factory.mktemp("model"))
    model = factories.tiny_model("Llama")
    model.config.max_position_embeddings = 4096
    model.save_pretrained(folder)
    limits = ["--max-concurrent-requests", str(ROOM), "--max-num-seqs", str(SEQUENCES)]
    options = ["--served-model-name", "m", "--threads", "1", "--kv-cache-memory", "8MiB", *limits]
    with served("--model", str(folder), *options) as running:
        yield running


@pytest.fixture
async def http(server: Served):  # type: ignore[no-untyped-def]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=ROOM)
    async with httpx.AsyncClient(base_url=server.url, timeout=SECONDS, limits=limits) as http:
        yield http


def body(rng: random.Random, **fields: object) -> dict[str, object]:
    # Few prompts: the tokenizer keeps up to 10,000 words, which these are to it, 4 KB each.
    prompt = "abcdefgh "[: rng.randint(1, 9)] * rng.randint(1, 20)
    return {"model": "m", "prompt": prompt, "max_tokens": 16, "ignore_eos": True, **fields}


async def idle(http: httpx.AsyncClient) -> None:
    """Wait until the engine has nothing to do and holds no block."""
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    async with asyncio.timeout(SECONDS):
        while True:
            text = (await http.get("/metrics")).text
            samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
            found = {s.name: s.value for s in samples if s.name in names}
            if list(found.values()) == [0.0] * len(names):
                return
            await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Held:
    """What the server and its engine hold: open files, threads, MiB of memory."""

    files: int
    threads: int
    memory: float

    @classmethod
    def by(cls, server: Served) -> Held:
        pid = server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        files = threads = pages = 0
        for each in (str(pid), *children):
            proc = Path("/proc", each)
            files += len(list((proc / "fd").iterdir()))
            threads += len(list((proc / "task").iterdir()))
            pages += int((proc / "statm").read_text().split()[1])
        return cls(files, threads, pages * 4096 / 2**20)


async def one(http: httpx.AsyncClient, rng: random.Random) -> str:
    """A request of some kind; how it went."""
    kind = rng.random()
    if kind < 0.1:  # not read at all, and left while it is queued, computed or answered
        with pytest.raises(httpx.TimeoutException):
            await http.post(
                PATH, json=body(rng, max_tokens=3000, n=2), timeout=rng.uniform(0.001, 0.2)
            )
        return "left"
    if kind < 0.6:
        async with http.stream("POST", PATH, json=body(rng, stream=True)) as response:
            assert response.status_code == 200
            leaves = rng.randrange(8) if kind < 0.3 else None
            last, number = "", 0
            async for line in response.aiter_lines():
                number, last = number + 1, line or last
                if number == leaves:
                    return "left"
        assert last == "data: [DONE]"
        return "streamed"
    response = await http.post(PATH, json=body(rng, n=rng.choice([1, 1, 3])))
    assert response.status_code == 200
    return "whole"


async def many(http: httpx.AsyncClient, count: int, seed: int) -> Counter[str]:
    """So many requests, as many at once as there is room for."""
    rng, todo, went = random.Random(seed), iter(range(count)), Counter[str]()

    async def worker() -> None:
        for _ in todo:
            went[await one(http, rng)] += 1

    await asyncio.gather(*(worker() for _ in range(ROOM // 2)))
    return went


async def test_nothing_is_kept_of_thousands_of_requests(
    server: Served, http: httpx.AsyncClient
) -> None:
    held: list[Held] = []
    for seed in range(4):
        went = await many(http, 1000, seed)
        assert set(went) == {"left", "streamed", "whole"}
        assert 200 < went["left"] < 450
        await idle(http)
        held.append(Held.by(server))
    # The first thousand fill caches and start threads.
    first, last = held[1], held[-1]
    assert abs(last.files - first.files) <= 5 + ROOM  # kept-alive connections come and go
    assert abs(last.threads - first.threads) <= 2
    assert last.memory - first.memory < 5


async def test_four_times_what_fits_is_answered_or_told_to_come_back(
    http: httpx.AsyncClient,
) -> None:
    rng = random.Random(9)
    asked = [http.post(PATH, json=body(rng, max_tokens=64)) for _ in range(4 * ROOM)]
    responses = await asyncio.gather(*asked)
    went = Counter(response.status_code for response in responses)
    assert set(went) == {200, 429}
    assert went[200] >= ROOM
    for response in responses:
        if response.status_code == 429:
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["code"] == "queue_full"
    await idle(http)


async def test_who_reads_nothing_holds_nobody_up(server: Served, http: httpx.AsyncClient) -> None:
    """Sockets that send a request for a stream, read nothing and close, halfway or wholly."""
    rng = random.Random(5)
    host, port = server.url.removeprefix("http://").split(":")
    writers = []
    for number in range(40):
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        asked = httpx.Request(
            "POST", f"{server.url}{PATH}", json=body(rng, max_tokens=1500, stream=True)
        )
        head = f"POST {PATH} HTTP/1.1\r\n" + "".join(
            f"{k}: {v}\r\n" for k, v in asked.headers.items()
        )
        writer.write(head.encode() + b"\r\n" + asked.content)
        if number % 2:
            writer.write_eof()
        writers.append(writer)
    await asyncio.sleep(0.5)
    went = await many(http, 40, seed=7)
    assert went["streamed"]
    for writer in writers:
        writer.transport.abort()
    await idle(http)
