"""How much faster BiTA answers: with it, without it, and transformers' own `generate`.

All three play the same conversations greedily, one after the other in every round, at 1, 4 and
16 streams. Ours keep a conversation's KV between turns by the prefix cache; `generate` keeps its
cache between turns at one stream, and batches with left padding above. Times are whole: prompts,
drafting, verification and host work included.

    python -m benchmarks.speculation --model models/bita-concierge --dtype bfloat16
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from transformers import AutoModelForCausalLM, DynamicCache

from adapters.format import BitaAdapter
from benchmarks.conversations import Player, play_all
from engine.answers import EngineAnswers
from engine.config import EngineConfig
from engine.engine import Engine
from engine.load import base_shape
from engine.model.loader import load_model
from models import DEFAULT_ADAPTER, DEFAULT_MODEL

MAX_TOKENS = 128
Answer = Callable[[list[list[int]]], list[list[int]]]


class Generate:
    """transformers' `generate`, greedy, as strong as it is without changing it."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True
        )
        self.model.eval().to(device)
        self.device = device
        self.cache: Any = None
        self.cached: list[int] = []

    @torch.inference_mode()
    def __call__(self, prompts: list[list[int]]) -> list[list[int]]:
        """Answers; a single prompt that goes on from the last one reuses its cache."""
        if len(prompts) > 1:
            return self._batch(prompts)
        prompt = prompts[0]
        if self.cache is None or prompt[: len(self.cached)] != self.cached:
            self.cache = DynamicCache(config=self.model.config)
        ids = torch.tensor([prompt], device=self.device)
        output = self._generate(ids, torch.ones_like(ids), past_key_values=self.cache)[0].tolist()
        self.cached = output[: self.cache.get_seq_length()]
        return [output[len(prompt) :]]

    def _batch(self, prompts: list[list[int]]) -> list[list[int]]:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device
        )
        ends = self.model.generation_config.eos_token_id
        eos = set(ends if isinstance(ends, list) else [ends])
        rows = self._generate(ids, mask)[:, width:].tolist()
        return [row[: next((i + 1 for i, t in enumerate(row) if t in eos), None)] for row in rows]

    def _generate(self, ids: torch.Tensor, mask: torch.Tensor, **more: Any) -> torch.Tensor:
        output: torch.Tensor = self.model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
            pad_token_id=0,
            **more,
        )
        return output


def measure(
    sides: dict[str, Answer], player: Player, conversations: int, streams: int, rounds: int
) -> dict[str, list[float]]:
    """Tokens a second of every side in every round; sides take turns within a round."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    bar = tqdm(total=rounds * len(sides), desc=f"{streams} streams", unit="run")
    for _ in range(rounds):
        for name, answer in sides.items():
            started = time.perf_counter()
            answers = play_all(player, conversations, streams, answer)
            tokens = sum(map(len, answers))
            speeds[name].append(tokens / (time.perf_counter() - started))
            bar.update()
    bar.close()
    return speeds


def ratio(speeds: dict[str, list[float]], name: str, other: str) -> float:
    """Median over rounds of one side's speed over another's in the same round."""
    return statistics.median(a / b for a, b in zip(speeds[name], speeds[other], strict=True))


def tokens_per_forward(before: list[int], after: list[int]) -> float:
    """Mean acceptance length between two snapshots of the engine's histogram."""
    before = before + [0] * (len(after) - len(before))
    counts = [b - a for a, b in zip(before, after, strict=True)]
    return sum(n * (i + 1) for i, n in enumerate(counts)) / max(1, sum(counts))


def main() -> None:
    """Print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="model folder")
    parser.add_argument("--adapter", type=Path, default=DEFAULT_ADAPTER, help="BiTA adapter")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--tree", default="auto", help="auto, comb, chain or fitted:ROWS")
    parser.add_argument("--compile", action="store_true", help="compile our model (not generate's)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--conversations", type=int, default=16, help="played in every run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every side")
    args = parser.parse_args()

    loaded = load_model(args.model, args.device, args.dtype)
    adapter = BitaAdapter.load(args.adapter, base_shape(loaded))
    config = EngineConfig(model=str(args.model), tree=args.tree, compile=args.compile)
    engine = Engine(config, loaded, {"bita": adapter})
    fast = EngineAnswers(engine)
    plain = EngineAnswers(engine, speculation=False)
    player = Player(args.model)
    results: dict[str, Any] = {
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": str(loaded.device),
        "threads": torch.get_num_threads(),
        "streams": {},
    }
    table = Table(title=f"tokens a second, {results['dtype']} on {results['device']}")
    for column in (
        "streams",
        "BiTA",
        "plain",
        "generate",
        "tokens/forward",
        "BiTA/plain",
        "plain/generate",
    ):
        table.add_column(column, justify="right")
    for streams in args.streams:
        sides: dict[str, Answer] = {
            "bita": lambda prompts: fast.answers(prompts, MAX_TOKENS),
            "plain": lambda prompts: plain.answers(prompts, MAX_TOKENS),
            "generate": Generate(args.model, loaded.device, loaded.dtype),
        }
        for answer in sides.values():  # warm-up: first calls allocate and tune kernels
            play_all(player, 2, streams, answer)
        before = list(engine.stats().speculation.acceptance_lengths)
        play_all(player, args.conversations, streams, sides["bita"])
        after = list(engine.stats().speculation.acceptance_lengths)
        speeds = measure(sides, player, args.conversations, streams, args.rounds)
        row = {
            "tokens_per_forward": tokens_per_forward(before, after),
            "speedup_vs_plain": ratio(speeds, "bita", "plain"),
            "plain_vs_transformers": ratio(speeds, "plain", "generate"),
            "tokens_per_second": {n: statistics.median(s) for n, s in speeds.items()},
        }
        results["streams"][str(streams)] = row
        table.add_row(
            str(streams),
            *(f"{speed:.0f}" for speed in row["tokens_per_second"].values()),
            *(
                f"{row[name]:.2f}"
                for name in ("tokens_per_forward", "speedup_vs_plain", "plain_vs_transformers")
            ),
        )
    Console().print(table)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
