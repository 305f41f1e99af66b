"""What loading an adapter does to the streams that run meanwhile.

One stream runs in an engine process, first undisturbed, then while adapters are loaded and unloaded
without pause, in turns. Its gaps between outputs are compared. Beside it the parts of one load:
reading the files, planning trees, both done by a thread of their own, and placing the adapter,
which alone happens between two steps.

    python -m benchmarks.hot_load
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from adapters.format import BitaAdapter
from adapters.successor import Successor
from benchmarks import report
from benchmarks.load.measures import percentile
from engine import EngineClient, EngineConfig, Request, SamplingParams
from engine.engine import Engine
from engine.load import load_engine, prepare_adapter
from models import DEFAULT_ADAPTER, DEFAULT_MODEL

TOKENS = 1000


def large(adapter: BitaAdapter, prompts: int, rank: int) -> BitaAdapter:
    """Noise in the place of an adapter, as large as asked for."""
    config = replace(adapter.config, num_prompts=prompts, successor_rank=rank)
    shapes = Successor.shapes(config.hidden_size, config.num_masks, rank)
    return BitaAdapter(
        config,
        torch.randn(config.shapes()["prompt_kv"]),
        adapter.mask_embeddings,
        Successor(**{name: torch.randn(shape) for name, shape in shapes.items()}),
    )


def parts(config: EngineConfig, folder: str) -> dict[str, float]:
    """Milliseconds of the parts of a load, best of several."""
    engine: Engine = load_engine(config)

    def place() -> None:
        engine.adapters.load("new", prepared)
        engine.adapters.unload("new")

    read = best(lambda: BitaAdapter.load(folder))
    prepared = prepare_adapter(engine, folder)
    return {
        "read": read,
        "plan": best(lambda: prepare_adapter(engine, folder)) - read,
        "place": best(place),
    }


def best(call: Callable[[], object]) -> float:
    """Milliseconds of the fastest of ten calls."""
    times = []
    for _ in range(10):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e3)
    return min(times)


async def gaps(client: EngineClient, name: str) -> list[float]:
    """Milliseconds between the outputs of one plain stream."""
    params = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True)
    times = [
        time.perf_counter()
        async for _ in client.generate(Request(name, [1, 300, 400], params, speculation=False))
    ]
    return [(b - a) * 1e3 for a, b in pairwise(times)]


async def churn(client: EngineClient, folder: str, enough: asyncio.Event) -> list[float]:
    """Load and unload until it is enough; milliseconds of every load."""
    times = []
    while not enough.is_set():
        started = time.perf_counter()
        await client.load_adapter("new", folder)
        times.append((time.perf_counter() - started) * 1e3)
        await client.unload_adapter("new")
    return times


async def streams(config: EngineConfig, folder: str, rounds: int) -> dict[str, Any]:
    """Gaps of a stream, undisturbed and beside loads, in turns."""
    client = EngineClient(config)
    await client.start()
    found: dict[str, list[float]] = {"alone": [], "beside": [], "load": []}
    try:
        await gaps(client, "warm-up")
        for i in range(rounds):
            found["alone"] += await gaps(client, f"alone-{i}")
            enough = asyncio.Event()
            task = asyncio.create_task(churn(client, folder, enough))
            found["beside"] += await gaps(client, f"beside-{i}")
            enough.set()
            found["load"] += await task
    finally:
        await client.stop()
    return {
        name: {
            "count": len(values),
            "median": percentile(values, 50),
            "p99": percentile(values, 99),
            "max": max(values),
        }
        for name, values in found.items()
    }


def main() -> None:
    """Print two tables and one JSON document; times in milliseconds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="streams of either kind")
    report.add_arguments(parser)
    args = parser.parse_args()
    model, threads = str(DEFAULT_MODEL), torch.get_num_threads()
    config = EngineConfig(model=model, max_adapters=2, num_threads=threads, dtype="float32")
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        big = Path(temporary) / "large"
        large(BitaAdapter.load(DEFAULT_ADAPTER), prompts=64, rank=1024).save(big)
        for name, folder in (("bita-concierge's", str(DEFAULT_ADAPTER)), ("large", str(big))):
            size = sum(f.stat().st_size for f in Path(folder).iterdir())
            result = {"adapter": name, "bytes": size, "parts": parts(config, folder)}
            results.append({**result, **asyncio.run(streams(config, folder, args.rounds))})
    columns = ("adapter", "MB", "", "count", "median", "p99", "max")
    table = report.Table(f"milliseconds between outputs, {threads} threads", columns)
    for result in results:
        for kind in ("alone", "beside", "load"):
            figures = (result[kind][key] for key in ("median", "p99", "max"))
            size = result["bytes"] / 1e6
            table.add(result["adapter"], size, kind, result[kind]["count"], *figures)
        print({name: round(value, 2) for name, value in result["parts"].items()})
    report.publish([table], results, args.markdown)


if __name__ == "__main__":
    main()
