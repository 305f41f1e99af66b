"""Seconds of things a GPU does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

REPEATS = 20


def wait(device: torch.device) -> None:
    """Until all that was launched is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """Median time of a call that is waited for, after two that are not timed."""
    times = []
    for i in range(repeats + 2):
        wait(device)
        started = time.perf_counter()
        call()
        wait(device)
        if i > 1:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def device_seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Time of a call on the GPU alone: in a CUDA graph, so that no launch is waited for."""
    call()  # compiled and warm
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    return seconds(graph.replay, torch.device("cuda"), 5) / repeats


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second, read and written, of a copy of `size` bytes within a device."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device)
