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
from engine.kernels.cpu.library import library
from engine.model.linears import MklLinear, NativeLinear, OneDnnLinear, PackedLinear, lay_out, pack

SHAPES = ((320, 864), (864, 320), (320, 4096), (2048, 2048), (2048, 8192))
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


def usual(width: int, out: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A layer as torch lays it out."""
    return nn.Linear(width, out, bias=False, dtype=dtype)


def input_major(width: int, out: int) -> nn.Linear:
    """A layer as `lay_out` leaves it."""
    layer = usual(width, out)
    lay_out(layer)
    return layer


def packed(
    kind: type[PackedLinear], width: int, out: int, dtype: torch.dtype = torch.float32
) -> nn.Linear:
    """A layer as one of the libraries packs it."""
    layer = usual(width, out, dtype)
    pack(layer, kind)
    return layer


LAYERS: dict[str, Callable[[int, int], nn.Linear]] = {
    "float32": usual,
    "input-major": input_major,
    "MKL": partial(packed, MklLinear),
    "oneDNN": partial(packed, OneDnnLinear),
    "ours": partial(packed, NativeLinear),
    "bfloat16": partial(usual, dtype=torch.bfloat16),
    "oneDNN, bfloat16": partial(packed, OneDnnLinear, dtype=torch.bfloat16),
    "ours, bfloat16": partial(packed, NativeLinear, dtype=torch.bfloat16),
}


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
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        parser.error("this build of torch lacks MKL or oneDNN, which are compared here")
    if library() is None:
        parser.error("our kernels cannot be built here, which are compared too")
    table = report.Table(
        f"microseconds, {torch.get_num_threads()} threads",
        ("in x out", "rows", *LAYERS, "float32 / packed", "bfloat16 / packed"),
    )
    results = []
    with torch.inference_mode():
        for width, out in SHAPES:
            layers = [make(width, out) for make in LAYERS.values()]
            for rows in ROWS:
                x = torch.randn(rows, width)
                calls = [partial(layer, x.to(layer.weight.dtype)) for layer in layers]
                times = dict(
                    zip(LAYERS, (microseconds(c, args.repeats) for c in calls), strict=True)
                )
                results.append({"in": width, "out": out, "rows": rows, "microseconds": times})
                best = min(times["MKL"], times["oneDNN"], times["ours"])
                half = min(times["oneDNN, bfloat16"], times["ours, bfloat16"])
                gains = times["float32"] / best, times["bfloat16"] / half
                table.add(f"{width} x {out}", rows, *times.values(), *gains)
    report.publish([table], results, args.markdown)


if __name__ == "__main__":
    main()
