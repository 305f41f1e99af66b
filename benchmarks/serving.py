"""Servers side by side over HTTP: throughput and latency by load.

Every server runs the same weights in the same precision, and plays the same sessions in every
round, one server after the other, in turns. Closed loop: --streams users, each waits for its
answer. Open loop: --rates, sessions a second that come when they come.

    python -m benchmarks.serving --streams 1 4 16 64 --llama-server build/llama-server
    python -m benchmarks.serving --rates 0.5 1 2 --sides bita plain
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import report, workloads
from benchmarks.load.arrivals import poisson
from benchmarks.load.client import complete, http_client
from benchmarks.load.loops import Exchange, closed, opened
from benchmarks.load.measures import Record, summary
from benchmarks.sessions import Call, Workload
from benchmarks.sides.llama_cpp import llama_cpp
from benchmarks.sides.ours import bita, plain, prediction
from benchmarks.sides.server import Server, Side
from benchmarks.sides.transformers_serve import transformers_serve
from models import DEFAULT_ADAPTER, DEFAULT_MODEL

SIDES = ("bita", "prediction", "plain", "transformers", "transformers-cb", "llama.cpp")
CONTEXT = 2048
WARM_UP_SESSIONS = 2
WARM_UP = 10_000_000
"""Number of the first warm-up session; measured ones begin at 0."""


def sides_of(args: argparse.Namespace, temporary: Path) -> list[Side]:
    """The sides that are asked for."""
    ours = ["--dtype", args.dtype, "--max-num-seqs", str(max([*args.streams, 64]))]
    ours += ["--compile"] if args.compile else []
    sides = []
    for name in args.sides:
        match name:
            case "bita":
                sides.append(bita(args.model, args.adapter, *ours))
            case "prediction":
                sides.append(prediction(args.model, args.adapter, *ours))
            case "plain":
                sides.append(plain(args.model, *ours))
            case "llama.cpp":
                from benchmarks.gguf_export import export

                file = temporary / "model.gguf"
                export(args.model, file, args.dtype)
                slots, threads = max(args.streams), torch.get_num_threads()
                sides.append(
                    llama_cpp(args.llama_server, file, args.dtype, threads, slots, CONTEXT)
                )
            case _:
                batching = name == "transformers-cb"
                sides.append(transformers_serve(args.model, args.dtype, batching))
    return sides


async def play(
    server: Server,
    args: argparse.Namespace,
    workload: Workload,
    numbers: Sequence[int],
    load: float,
) -> list[Exchange]:
    """One run of one side. load: streams, or sessions a second."""
    sessions = [workload.session(number) for number in numbers]
    async with http_client(server.url) as http:

        async def send(call: Call, intended: float) -> Record:
            return await complete(http, server.side.body(call, args.temperature), intended)

        if args.rates:
            return await opened(send, sessions, poisson(load, len(sessions), seed=numbers[0]))
        return await closed(send, sessions, int(load))


def measure(
    servers: Sequence[Server], args: argparse.Namespace, workload: Workload, load: float, first: int
) -> dict[str, Any]:
    """All rounds at one load: medians of every side, ratios to the first one's throughput.

    first: number of the first session; no other load may use the same.
    """
    count = args.sessions if args.rates else max(args.sessions, int(load))
    runs: dict[str, list[list[Exchange]]] = {server.side.name: [] for server in servers}
    bar = tqdm(total=args.rounds * len(servers), desc=f"load {load:g}", unit="run")
    for server in servers:
        warm = range(WARM_UP + first, WARM_UP + first + WARM_UP_SESSIONS)
        asyncio.run(play(server, args, workload, warm, load))
    for turn in range(args.rounds):
        numbers = range(first + turn * count, first + (turn + 1) * count)
        for server in servers if turn % 2 == 0 else reversed(servers):
            done = asyncio.run(play(server, args, workload, numbers, load))
            runs[server.side.name].append(done)
            bar.update()
    bar.close()
    sums = {name: [summary([r for _, r in run]) for run in done] for name, done in runs.items()}
    speeds = {name: [s["tokens_per_second"] for s in each] for name, each in sums.items()}
    best = servers[0].side.name
    return {
        "rate" if args.rates else "streams": load,
        "sides": {name: medians(each) for name, each in sums.items()},
        "speed_ratio": {f"{best}/{n}": report.ratio(speeds[best], speeds[n]) for n in speeds},
        "same_text": {name: same_text(runs[best], done) for name, done in runs.items()},
        "errors": sorted({r.error for d in runs.values() for run in d for _, r in run if r.error}),
    }


def medians(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of every figure the median over rounds."""
    return {
        key: medians([s[key] for s in summaries])
        if isinstance(value, dict)
        else statistics.median(s[key] for s in summaries)
        for key, value in summaries[0].items()
    }


def same_text(one: Sequence[Sequence[Exchange]], other: Sequence[Sequence[Exchange]]) -> list[int]:
    """How many prompts, answered by both sides, had the same answer; of how many."""
    answers = {call.prompt: r.text for run in one for call, r in run if r.error is None}
    both = [
        record.text == answers[call.prompt]
        for run in other
        for call, record in run
        if call.prompt in answers and record.error is None
    ]
    return [sum(both), len(both)]


def table_of(point: dict[str, Any], args: argparse.Namespace) -> report.Table:
    """One load as a table; times in milliseconds."""
    load = f"{point['rate']:g} sessions a second" if args.rates else f"{point['streams']} streams"
    title = f"{args.workload}, {load}, temperature {args.temperature:g}, {args.dtype}; ms"
    best = args.sides[0]
    times = ("TTFT p50", "p99", "ITL p50", "p99", "E2E p50", "p99")
    table = report.Table(
        title, ("side", "tokens/s", f"{best}/side", *times, f"text as {best}", "failed")
    )
    for name, side in point["sides"].items():
        figures = [side[what][p] * 1e3 for what in ("ttft", "itl", "e2e") for p in ("p50", "p99")]
        same, asked = point["same_text"][name]
        table.add(
            name,
            side["tokens_per_second"],
            f"{point['speed_ratio'][f'{best}/{name}']:.2f}x",
            *figures,
            f"{same}/{asked}" if args.temperature == 0 else "",
            f"{side['failed']:g}/{side['calls']:g}",
        )
    return table


def options() -> argparse.Namespace:
    """What is asked for."""
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description="\n".join(lines), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="model folder")
    parser.add_argument("--adapter", type=Path, default=DEFAULT_ADAPTER, help="BiTA adapter")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="of every side (default: %(default)s)",
    )
    parser.add_argument("--compile", action="store_true", help="start our servers with --compile")
    workloads.add_arguments(parser)
    parser.add_argument("--temperature", type=float, default=0.0, help="(default: greedy)")
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16], help="closed loops")
    load.add_argument("--rates", type=float, nargs="+", help="open loops, sessions a second")
    parser.add_argument(
        "--sessions", type=int, default=16, help="in a run, and at least one a stream"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of every side at every load")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=SIDES,
        default=["bita", "plain"],
        help="the first is compared with all others; prediction is bita told what the workload "
        "predicts, transformers-cb its continuous batching (default: bita plain)",
    )
    parser.add_argument("--llama-server", type=Path, help="binary of llama.cpp's server")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the results: .svg or .png")
    report.add_arguments(parser)
    args = parser.parse_args()
    if "llama.cpp" in args.sides and args.llama_server is None:
        parser.error("llama.cpp needs --llama-server; docs/benchmarks.md says how it is built")
    return args


def main() -> None:
    """A table a load, and one JSON document; its times in seconds."""
    args = options()
    # Ended from outside, it still stops its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    workload = workloads.workload(args)
    points = []
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [stack.enter_context(Server(side)) for side in sides_of(args, temporary)]
        first = 0
        for load in args.rates or args.streams:
            points.append(measure(servers, args, workload, load, first))
            first += args.rounds * max(args.sessions, *args.streams)
    results = {
        "machine": report.machine(),
        "dtype": args.dtype,
        "workload": args.workload,
        "temperature": args.temperature,
        "points": points,
    }
    if args.plot is not None:
        from benchmarks.plot import plot

        title = f"{args.workload}, temperature {args.temperature:g}, {args.dtype}"
        plot(points, "rate" if args.rates else "streams", title, args.plot)
    report.publish([table_of(point, args) for point in points], results, args.markdown)


if __name__ == "__main__":
    main()
