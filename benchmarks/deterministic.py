"""What `--deterministic` costs, and what it buys: speed and equal answers, with it and without.

Four sides answer the same prompts: usual and deterministic steps, each with and without drafts.
Sides take turns within a round. An answer is the same if it is, token for token, what the steps of
its kind give without drafts to one request at a time.

    python -m benchmarks.deterministic --dtype bfloat16 --streams 1 8
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import loading, report
from benchmarks.in_process import Ours
from benchmarks.losslessness import prompts_of
from benchmarks.sessions import Call
from engine.config import EngineConfig
from engine.engine import Engine

KINDS = ("usual", "deterministic")


@dataclass(slots=True)
class Side:
    """seconds a token, of every round. answers: of the last one."""

    ours: Ours
    seconds: list[float] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)

    def run(self, calls: list[Call], streams: int) -> None:
        """All calls, so many at a time."""
        start = time.perf_counter()
        self.answers = []
        for first in range(0, len(calls), streams):
            self.answers += self.ours(calls[first : first + streams])
        self.seconds.append((time.perf_counter() - start) / sum(map(len, self.answers)))


def main() -> None:
    """Print tables, and one JSON document in the last line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    loading.add_arguments(parser)
    parser.add_argument("--prompts", type=int, default=16, help="prompts to answer")
    parser.add_argument("--max-tokens", type=int, default=64, help="length of the answers")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8], help="prompts at once")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every side")
    report.add_arguments(parser)
    args = parser.parse_args()

    loaded, adapter = loading.load(args)
    calls = [
        Call(prompt="", token_ids=prompt, max_tokens=args.max_tokens)
        for prompt in prompts_of(args.model, args.prompts)
    ]
    engines = {
        kind: Engine(
            # Every run computes all of its prompts.
            EngineConfig(
                model=str(args.model), deterministic=kind == KINDS[1], prefix_caching=False
            ),
            loaded,
            {"bita": adapter},
        )
        for kind in KINDS
    }
    alone = {}
    for kind, engine in engines.items():
        side = Side(Ours(engine, speculation=False))
        side.run(calls, 1)
        alone[kind] = side.answers
    results: dict[str, Any] = {
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": str(loaded.device),
        "machine": report.machine(),
        "settings": {k: v for k, v in vars(args).items() if not isinstance(v, Path)},
        "streams": {},
    }
    tables = []
    for streams in args.streams:
        sides = {
            (kind, drafts): Side(Ours(engine, speculation=drafts))
            for kind, engine in engines.items()
            for drafts in (False, True)
        }
        for _ in tqdm(range(args.rounds), desc=f"{streams} at once", unit="round"):
            for side in sides.values():
                side.run(calls, streams)
        table = report.Table(
            f"{streams} at once, {results['dtype']} on {results['device']}",
            ("steps", "drafts", "ms a token", "time of usual steps", "same answers"),
        )
        rows = []
        for (kind, drafts), side in sides.items():
            same = sum(a == b for a, b in zip(side.answers, alone[kind], strict=True))
            row = {
                "ms_per_token": 1000 * report.ratio(side.seconds, [1.0] * args.rounds),
                "time_of_usual": report.ratio(side.seconds, sides["usual", drafts].seconds),
                "same_answers": f"{same}/{len(calls)}",
            }
            table.add(kind, "yes" if drafts else "no", *row.values())
            rows.append({"steps": kind, "drafts": drafts, **row})
        tables.append(table)
        results["streams"][streams] = rows
    report.publish(tables, results, args.markdown)


if __name__ == "__main__":
    main()
