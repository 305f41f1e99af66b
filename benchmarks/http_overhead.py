"""What the server adds to the engine: to the first token, and to every chunk of a stream.

The engine is a stub that answers at once, in its process and over its messages as ever, so that
all the time a client waits is HTTP, template, tokenising, messages and detokenising. The server
has a core to itself (Linux); stub and client share the others. One token a chunk, the worst case:
drafts that are accepted share one.

    python -m benchmarks.http_overhead
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.load.measures import percentile
from benchmarks.overhead.client import Connection, Stream
from benchmarks.overhead.engine import TEXT
from benchmarks.sides.server import Server, Side

PROMPTS = {"a sentence": 1, "twelve turns": 12}
"""Messages of a prompt."""
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def body(messages: int, max_tokens: int, **more: Any) -> dict[str, Any]:
    """A streamed chat request."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": TEXT} for i in range(messages - 1)]
    last = {"role": "user", "content": f"{time.monotonic_ns()} {TEXT}"}
    return {
        "model": "m",
        "messages": [*turns, last],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **more,
    }


async def first_tokens(port: int, messages: int, count: int) -> dict[str, Any]:
    """Milliseconds to the first token, one request after the other."""
    times = []
    async with Connection(port) as connection:
        for number in range(count + 10):
            stream = await connection.stream(body(messages, 2))
            if number >= 10:  # the first ones warm up
                times.append(stream.ttft * 1e3)
    return {"count": count, "median": percentile(times, 50), "p99": percentile(times, 99)}


async def chunks(port: int, pid: int, streams: int, tokens: int, **more: Any) -> dict[str, Any]:
    """Chunks a second of so many streams at once, and a second of the server's own CPU time."""

    async def one(connection: Connection) -> Stream:
        return await connection.stream(body(1, tokens, **more))

    connections = [await Connection(port).__aenter__() for _ in range(streams)]
    try:
        started, cpu = time.perf_counter(), cpu_seconds(pid)
        done = await asyncio.gather(*map(one, connections))
        seconds, cpu = time.perf_counter() - started, cpu_seconds(pid) - cpu
    finally:
        for connection in connections:
            await connection.__aexit__()
    count = sum(stream.chunks for stream in done)
    if count < streams * tokens:
        raise RuntimeError(f"{streams * tokens} tokens were to come, {count} events did")
    return {"chunks": count, "per_second": count / seconds, "per_cpu_second": count / cpu}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All of it, on one server."""
    core = max(os.sched_getaffinity(0))
    server = [sys.executable, "-m", "benchmarks.overhead.server"]
    side = Side("server", lambda port: [*server, str(port), str(core)], lambda *_: {})
    with Server(side) as running:
        port, pid = running.port, running.process.pid
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {core} or {core})
        ttft = {
            name: asyncio.run(first_tokens(port, messages, args.requests))
            for name, messages in PROMPTS.items()
        }
        rates = []
        for streams in args.streams:
            rounds = [
                asyncio.run(chunks(port, pid, streams, args.chunks // streams))
                for _ in range(args.rounds)
            ]
            names = ("per_second", "per_cpu_second")
            middle = {name: percentile([one[name] for one in rounds], 50) for name in names}
            rates.append({"streams": streams, **middle})
    return {"ttft_ms": ttft, "chunks": rates}


def main() -> None:
    """Print two tables and one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=200, help="for each prompt")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--chunks", type=int, default=6400, help="of all streams together")
    parser.add_argument("--rounds", type=int, default=3)
    report.add_arguments(parser)
    args = parser.parse_args()
    found = measure(args)
    first = report.Table("milliseconds to the first token", ("prompt", "median", "p99"))
    for name, times in found["ttft_ms"].items():
        first.add(name, times["median"], times["p99"])
    rate = report.Table(
        "chunks of one token from one core", ("streams", "a second", "a second of CPU time")
    )
    for row in found["chunks"]:
        rate.add(row["streams"], row["per_second"], row["per_cpu_second"])
    results = {"machine": report.machine(), "rounds": args.rounds, **found}
    report.publish([first, rate], results, args.markdown)


if __name__ == "__main__":
    main()
