"""What a linear layer of few rows costs on this CPU, by dtype and by how its weight lies in memory.

python -m benchmarks.linears
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks import report
from engine.model.linears import lay_out, pack

SHAPES = ((320, 864), (864, 320), (320, 4096), (2048, 2048), (2048, 8192))
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


def microseconds(call: Callable[[], object], repeats: int) -> float:
    """Mean time of a call, after a warm-up."""
    for _ in range(10):
        call()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats * 1e6


def main() -> None:
    """Print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200, help="calls a figure")
    report.add_arguments(parser)
    args = parser.parse_args()
    table = report.Table(
        f"microseconds, {torch.get_num_threads()} threads",
        ("in x out", "rows", "float32", "input-major", "packed", "bfloat16", "float32 / packed"),
    )
    results = []
    with torch.inference_mode():
        for width, out in SHAPES:
            usual, major, packed = (nn.Linear(width, out, bias=False) for _ in range(3))
            lay_out(major)
            pack(packed)
            half = nn.Linear(width, out, bias=False, dtype=torch.bfloat16)
            for rows in ROWS:
                x = torch.randn(rows, width)
                calls: list[Callable[[], object]] = [
                    *(partial(layer, x) for layer in (usual, major, packed)),
                    partial(half, x.bfloat16()),
                ]
                times = [microseconds(call, args.repeats) for call in calls]
                results.append({"in": width, "out": out, "rows": rows, "microseconds": times})
                table.add(f"{width} x {out}", rows, *times, times[0] / times[2])
    report.publish([table], results, args.markdown)


if __name__ == "__main__":
    main()
