"""Attention of one layer: the kernels against torch's own, by batch, context and rows."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import torch

from benchmarks.gpu.cases import PROMPTS, Shape, comb, inputs, lay_out, store
from benchmarks.gpu.timing import device_seconds, seconds
from engine.attention.interface import Backend, LayerCall, Scope
from engine.attention.paged import PagedStep
from engine.attention.sdpa import SdpaStep
from engine.speculation.tree import TreeTopology


@torch.inference_mode()
def compare(shapes: dict[str, Shape], batches: list[int], pasts: list[int]) -> list[dict[str, Any]]:
    """Microseconds a layer of both backends, for a bare root and for the paper's 52 rows.

    host: preparing the batch. wall: a forward as Python launches it. device: without launches.
    """
    rows = []
    trees = {"plain": TreeTopology.root(0).fill(1), "comb": comb()}
    for (model, shape), size, past in product(shapes.items(), batches, pasts):
        for name, tree in trees.items():
            sequences = [(0, tree, past, 0)] * size
            storage = store(shape, sequences)
            batch = lay_out(storage, sequences)
            tensors = inputs(shape, batch.num_rows)
            call = LayerCall(0, shape.head_dim**-0.5, Scope(), None, None)
            row: dict[str, Any] = {"model": model, "batch": size, "past": past, "rows": name}
            backends: dict[str, Backend] = {"triton": PagedStep, "sdpa": SdpaStep}
            for label, backend in backends.items():
                row[label] = _microseconds(backend, batch, storage, tensors, call)
            rows.append(row)
    return rows


def _microseconds(
    backend: Backend, batch: Any, storage: Any, tensors: Any, call: LayerCall
) -> dict[str, float]:
    device, prompts = storage.keys.device, [PROMPTS, PROMPTS]
    step = backend(batch, storage, prompts)
    once = seconds(lambda: backend(batch, storage, prompts).forward(*tensors, call), device, 3)
    wall = seconds(lambda: step.forward(*tensors, call), device, 3)
    times = {"host": max(0.0, once - wall), "wall": wall}
    if device.type == "cuda":
        times["device"] = device_seconds(lambda: step.forward(*tensors, call))
    return {name: round(1e6 * time, 1) for name, time in times.items()}


def served_shapes() -> dict[str, Shape]:
    """One model with a KV head for each query head, one with four query heads to a KV head."""
    llama2 = Shape(kv_heads=32, dtype=torch.bfloat16)
    return {"Llama-2-7B": llama2, "Llama-3-8B": replace(llama2, kv_heads=8)}
