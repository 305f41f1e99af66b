"""What a forward of more rows costs at the shape of a larger model, with random weights.

Speculation pays where a step of 32 rows costs hardly more than a step of one. Rows of every count
take turns in every round, for one sequence behind a context. Ranking a level of drafts takes a
product with the output projection, of which a draft vocabulary saves a part: the second table.

    python -m benchmarks.step_times --dtype bfloat16
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import report
from benchmarks.random_model import add_shape, random_model
from engine.config import EngineConfig
from engine.engine import Engine
from engine.model.loader import load_model
from engine.model.runner import ModelRunner
from engine.model.trial import trial_forward, trial_ranking
from engine.speculation.cost import LEVEL_NODES


def in_turns(
    runs: Mapping[int, Callable[[], None]], rounds: int, what: str
) -> dict[int, list[float]]:
    """Seconds of every run in every round; all take turns."""
    seconds: dict[int, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in tqdm(range(rounds), desc=what, unit="round"):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def levels(runner: ModelRunner, vocabulary: int, sizes: list[int]) -> dict[int, Callable[[], None]]:
    """Ranks one level of a draft tree among all tokens, and among the first so many."""
    parts = {size: torch.arange(size) for size in sizes if size < vocabulary}
    whole = {vocabulary: trial_ranking(runner)}
    ranked = whole | {size: trial_ranking(runner, part) for size, part in parts.items()}
    return {size: partial(rank, LEVEL_NODES) for size, rank in ranked.items()}


def compared(seconds: dict[int, list[float]]) -> dict[int, dict[str, float]]:
    """Medians, and ratios to the first."""
    first = next(iter(seconds.values()))
    return {
        name: {"seconds": statistics.median(times), "ratio": report.ratio(times, first)}
        for name, times in seconds.items()
    }


def table_of(title: str, what: str, measured: dict[int, dict[str, float]]) -> report.Table:
    """A line for each."""
    table = report.Table(title, (what, "ms", f"against {next(iter(measured))}"))
    for name, step in measured.items():
        table.add(name, step["seconds"] * 1e3, f"{step['ratio']:.2f}x")
    return table


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_shape(parser)
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64])
    parser.add_argument(
        "--draft-vocabulary",
        type=int,
        nargs="+",
        default=[32768, 8192, 2048],
        metavar="N",
        help="tokens that a level of drafts is ranked among (default: %(default)s)",
    )
    parser.add_argument("--context", type=int, default=256, help="tokens before the rows")
    parser.add_argument("--rounds", type=int, default=9, help="forwards of every count")
    parser.add_argument("--compile", action="store_true", help="compile the model")
    parser.add_argument("--no-native", action="store_true", help="without our CPU kernels")
    report.add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Print two tables and one JSON document."""
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        size = random_model(Path(folder), args.layers, args.hidden, args.vocabulary)
        native = not args.no_native
        loaded = load_model(folder, args.device, args.dtype, args.compile, native=native)
        config = EngineConfig(model=folder, max_num_seqs=1, compile=args.compile)
        runner = Engine(config, loaded, {}).runner
    forward = trial_forward(runner)
    forwards = {rows: partial(forward, [rows], args.context) for rows in args.rows}
    steps = compared(in_turns(forwards, args.rounds, "forwards"))
    ranked = levels(runner, args.vocabulary, args.draft_vocabulary)
    drafting = compared(in_turns(ranked, args.rounds, "levels"))
    dtype = str(loaded.dtype).removeprefix("torch.")
    where = f"{dtype} on {loaded.device}, {torch.get_num_threads()} threads"
    results = {
        "machine": report.machine(),
        "parameters": size,
        "dtype": dtype,
        "device": str(loaded.device),
        "context": args.context,
        "steps": steps,
        "levels": drafting,
    }
    tables = [
        table_of(f"a forward of {size / 1e6:.0f} M parameters in {where}", "rows", steps),
        table_of(f"a level of {LEVEL_NODES} nodes' drafts", "ranked among", drafting),
    ]
    report.publish(tables, results, args.markdown)


if __name__ == "__main__":
    main()
