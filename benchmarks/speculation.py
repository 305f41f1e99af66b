"""How much faster BiTA answers: with it, without it, and transformers' own `generate`.

All play the same sessions in every round, in turns and in one process. Ours keep a conversation's
KV between turns by the prefix cache, and whoever is answered asks on at once. `generate` keeps its
cache between turns at one stream, and batches with left padding above, a batch after the other;
with `prompt_lookup_num_tokens` it knows one stream only. Times are whole: prompts, drafting,
verification and host work included.

    python -m benchmarks.speculation --model models/bita-concierge --dtype bfloat16
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from benchmarks import loading, report, workloads
from benchmarks.in_process import Generate, Ours, Side
from benchmarks.sessions import Workload
from engine.config import EngineConfig
from engine.engine import Engine
from engine.stats import SpecDecodingStats

WARM_UP = 10_000_000
LOOKUP = 10
"""Tokens that prompt lookup drafts: transformers' own example."""


def measure(
    sides: dict[str, Side],
    workload: Workload,
    tokenizer: Tokenizer,
    streams: int,
    rounds: Sequence[range],
) -> dict[str, list[float]]:
    """Tokens a second of every side in every round; sides take turns within a round.

    rounds: numbers of the sessions of each round, no two alike: caches must not know them.
    """
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    bar = tqdm(total=len(rounds) * len(sides), desc=f"{streams} streams", unit="run")
    for numbers in rounds:
        for name, side in sides.items():
            sessions = [workload.session(number) for number in numbers]
            started = time.perf_counter()
            tokens = side.play(sessions, streams, tokenizer)
            speeds[name].append(tokens / (time.perf_counter() - started))
            bar.update()
    bar.close()
    return speeds


def tokens_per_forward(before: list[int], after: list[int]) -> float:
    """Mean acceptance length between two snapshots of the engine's histogram."""
    before = before + [0] * (len(after) - len(before))
    counts = [b - a for a, b in zip(before, after, strict=True)]
    return sum(n * (i + 1) for i, n in enumerate(counts)) / max(1, sum(counts))


def estimated_speedup(before: SpecDecodingStats, after: SpecDecodingStats) -> float:
    """What the engine itself believes, as /metrics has it; 0 where its tree is fixed."""
    seconds = after.seconds - before.seconds
    return (after.plain_seconds - before.plain_seconds) / seconds if seconds else 0.0


def options() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    loading.add_arguments(parser)
    parser.add_argument("--tree", default="auto", help="auto, comb, chain or fitted:ROWS")
    parser.add_argument("--compile", action="store_true", help="compile our model (not generate's)")
    workloads.add_arguments(parser)
    parser.add_argument("--temperature", type=float, default=0.0, help="(default: greedy)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--sessions", type=int, default=16, help="in a run, at least one a stream")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every side")
    parser.add_argument(
        "--against",
        nargs="*",
        default=["generate", "lookup"],
        choices=["generate", "lookup"],
        metavar="SIDE",
        help="sides of transformers: generate, and lookup, the same with drafts from the prompt "
        "(default: both; none compares our own alone)",
    )
    report.add_arguments(parser)
    return parser.parse_args()


def engines(args: argparse.Namespace) -> tuple[Engine, Engine]:
    """One that drafts, one that does not, of the same weights.

    Each has a prefix cache of its own, that of the other would know its prompts.
    """
    loaded, adapter = loading.load(args, compiled=args.compile)
    config = EngineConfig(
        model=str(args.model),
        tree=args.tree,
        max_num_seqs=max(args.streams),
        compile=args.compile,
    )
    drafting = Engine(config, loaded, {"bita": adapter})
    return drafting, Engine(replace(config, compile=False), loaded, {})  # compiled by now


def sides_of(args: argparse.Namespace, drafting: Engine, plain: Engine) -> dict[str, Side]:
    """All that take turns, by name."""
    sides: dict[str, Side] = {
        "bita": Ours(drafting, True, args.temperature),
        "plain": Ours(plain, False, args.temperature),
    }
    for name, lookup in (("generate", None), ("lookup", LOOKUP)):
        if name in args.against:
            sides[name] = Generate(str(args.model), plain.loaded, args.temperature, lookup)
    # As a server's engine does once it is loaded (`engine.process`).
    gc.freeze()
    return sides


def compare(
    speeds: dict[str, list[float]], before: SpecDecodingStats, after: SpecDecodingStats
) -> dict[str, Any]:
    """What runs of one number of streams say, and the drafting engine's counters around them."""
    against = {name: report.ratio(speeds["bita"], speeds[name]) for name in speeds}
    row = {
        "tokens_per_forward": tokens_per_forward(
            before.acceptance_lengths, after.acceptance_lengths
        ),
        "tokens_per_second": {name: statistics.median(s) for name, s in speeds.items()},
        "speedup_vs_plain": against["plain"],
        "speedup_estimated": estimated_speedup(before, after),
        "bita_against": against,
    }
    if "generate" in speeds:
        row["plain_vs_transformers"] = report.ratio(speeds["plain"], speeds["generate"])
    return row


def main() -> None:
    """Print a table and one JSON document."""
    args = options()
    drafting, plain = engines(args)
    sides = sides_of(args, drafting, plain)
    workload = workloads.workload(args)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    loaded = plain.loaded
    results: dict[str, Any] = {
        "machine": report.machine(),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": str(loaded.device),
        "threads": torch.get_num_threads(),
        "workload": args.workload,
        "temperature": args.temperature,
        "streams": {},
    }
    others = list(sides)[1:]
    table = report.Table(
        f"tokens a second: {args.workload}, temperature {args.temperature:g}, "
        f"{results['dtype']} on {results['device']}",
        (
            *("streams", *sides, "tokens/forward"),
            *(f"bita/{name}" for name in others),
            "bita/plain, estimated",
        ),
    )
    first = 0
    for streams in args.streams:
        count = max(args.sessions, streams)
        here = {n: side for n, side in sides.items() if n != "lookup" or streams == 1}
        for side in here.values():  # first calls allocate and tune kernels
            numbers = range(WARM_UP + first, WARM_UP + first + streams)
            side.play([workload.session(n) for n in numbers], streams, tokenizer)
        before = deepcopy(drafting.stats().speculation)
        rounds = [range(first + i * count, first + (i + 1) * count) for i in range(args.rounds)]
        first = rounds[-1].stop
        speeds = measure(here, workload, tokenizer, streams, rounds)
        row = compare(speeds, before, drafting.stats().speculation)
        results["streams"][str(streams)] = row
        table.add(
            streams,
            *(row["tokens_per_second"].get(name, "") for name in sides),
            row["tokens_per_forward"],
            *(row["bita_against"].get(name, "") for name in others),
            row["speedup_estimated"],
        )
    report.publish([table], results, args.markdown)


if __name__ == "__main__":
    main()
