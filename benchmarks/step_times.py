"""What a forward of more rows costs at the shape of a larger model, with random weights.

Speculation pays where a step of 32 rows costs hardly more than a step of one. Rows of every count
take turns in every round, for one sequence behind a context.

    python -m benchmarks.step_times --dtype bfloat16
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import report
from engine.config import EngineConfig
from engine.engine import Engine
from engine.model.loader import load_model
from engine.model.trial import trial_forward


def random_model(folder: Path, layers: int, hidden: int, vocabulary: int) -> int:
    """Save a Llama of this shape, in bf16; how many parameters it has."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        vocab_size=vocabulary,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def seconds_of(forward: Callable[[int], None], rows: int) -> float:
    """Seconds of a forward of `rows` rows."""
    started = time.perf_counter()
    forward(rows)
    return time.perf_counter() - started


def main() -> None:
    """Print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=24, help="(default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=1024, help="(default: %(default)s)")
    parser.add_argument("--vocabulary", type=int, default=32000, help="(default: %(default)s)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64])
    parser.add_argument("--context", type=int, default=256, help="tokens before the rows")
    parser.add_argument("--rounds", type=int, default=9, help="forwards of every count")
    parser.add_argument("--compile", action="store_true", help="compile the model")
    report.add_arguments(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = random_model(Path(folder), args.layers, args.hidden, args.vocabulary)
        loaded = load_model(folder, args.device, args.dtype)
        config = EngineConfig(model=folder, max_num_seqs=1, compile=args.compile)
        forward = trial_forward(Engine(config, loaded, {}).runner, args.context)
    seconds: dict[int, list[float]] = {rows: [] for rows in args.rows}
    for rows in args.rows:
        forward(rows)
    for _ in tqdm(range(args.rounds), unit="round"):
        for rows in args.rows:
            seconds[rows].append(seconds_of(forward, rows))
    dtype = str(loaded.dtype).removeprefix("torch.")
    table = report.Table(
        f"a forward of {size / 1e6:.0f} M parameters in {dtype} on {loaded.device}, "
        f"{torch.get_num_threads()} threads",
        ("rows", "ms", f"against {args.rows[0]}"),
    )
    results = {
        "machine": report.machine(),
        "parameters": size,
        "dtype": dtype,
        "device": str(loaded.device),
        "context": args.context,
        "steps": {
            rows: {
                "seconds": statistics.median(times),
                "ratio": report.ratio(times, seconds[args.rows[0]]),
            }
            for rows, times in seconds.items()
        },
    }
    for rows, step in results["steps"].items():
        table.add(rows, step["seconds"] * 1e3, f"{step['ratio']:.2f}x")
    report.publish([table], results, args.markdown)


if __name__ == "__main__":
    main()
