"""Batches that put a kernel through what the engine may ask of it, at any size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from engine.attention.interface import Backend, LayerCall, Scope
from engine.attention.reference import ReferenceStep
from engine.batch import ForwardBatch, SegmentPlan
from engine.cache.storage import KVStorage
from engine.speculation.tree import DraftTree, TreeTopology

PROMPTS, MASKS, LAYERS = 16, 3, 2


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a case. past: committed tokens of the longest sequence; prefill: rows of a chunk."""

    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    block_size: int = 16
    past: int = 3000
    prefill: int = 200
    dtype: torch.dtype = torch.float32
    device: str = "cuda"


@dataclass(frozen=True, slots=True)
class Case:
    """What a layer asks of attention."""

    scope: Scope = field(default_factory=Scope)
    softcap: float | None = None
    sinks: bool = False


def named_cases(window: int, chunk: int) -> dict[str, Case]:
    """Every kind of layer the engine serves."""
    return {
        "plain": Case(),
        "window": Case(Scope(window=window)),
        "chunk": Case(Scope(chunk=chunk)),
        "softcap": Case(softcap=30.0),
        "softcap, window, sinks": Case(Scope(window=window), softcap=30.0, sinks=True),
    }


def comb() -> DraftTree:
    """The paper's 52 rows: root, 12 nodes, 3 masks behind each."""
    return TreeTopology.comb(4, MASKS).fill(1, [[2, 3, 4, 5]] * MASKS)


def ragged(past: int, prefill: int) -> list[tuple[int, DraftTree | None, int, int]]:
    """(causal rows, tree, past, adapter) of sequences of every kind that meet in one step.

    More than 64 rows in a tree, a prefill chunk with and without a root, trees with and without
    causal rows before them, a bare root, a first step without a past.
    """
    wide = TreeTopology.comb(7, MASKS).fill(1, [list(range(7))] * MASKS)
    chain = TreeTopology.chain(MASKS).fill(1, [[2]] * MASKS)
    root = TreeTopology.root(0).fill(1)
    return [
        (prefill, chain, past // 3, 0),
        (prefill // 3, None, 0, 0),
        (0, comb(), past, 1),
        (5, wide, past // 2 + 1, 0),
        (0, root, past - 1, 1),
        (0, root, 0, 0),
    ]


def store(shape: Shape, sequences: list[tuple[int, DraftTree | None, int, int]]) -> KVStorage:
    """Storage with random contents and room for the sequences, two adapters of unequal size."""
    size = shape.block_size
    made = KVStorage(
        num_layers=LAYERS,
        num_kv_heads=shape.kv_heads,
        key_dim=shape.head_dim,
        value_dim=shape.head_dim,
        num_blocks=sum(-(-past // size) for _, _, past, _ in sequences) + 1,
        block_size=size,
        adapter_slots=2,
        max_prompts=PROMPTS,
        step_rows=sum(causal + 128 for causal, _, _, _ in sequences),
        max_segments=len(sequences),
        dtype=shape.dtype,
        device=torch.device(shape.device),
    )
    made.keys.normal_()
    made.values.normal_()
    return made


def lay_out(
    storage: KVStorage, sequences: list[tuple[int, DraftTree | None, int, int]]
) -> ForwardBatch:
    """The sequences' rows; their blocks lie scattered, as after a while of serving."""
    size = storage.block_size
    order = torch.randperm(storage.num_blocks, generator=torch.Generator().manual_seed(0)).tolist()
    plans = []
    for causal, tree, past, adapter in sequences:
        blocks = [order.pop() for _ in range(-(-past // size))]
        plans.append(SegmentPlan([7] * causal, tree, past, blocks, adapter))
    return ForwardBatch.build(plans, size, storage.scratch_block, MASKS, 1 << 30)


def inputs(shape: Shape, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random query, key and value as a model hands them over, `[rows, heads, dim]`."""
    query, key, value = (
        torch.randn(heads, rows, shape.head_dim, dtype=shape.dtype, device=shape.device)
        for heads in (shape.heads, shape.kv_heads, shape.kv_heads)
    )
    return query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)


def largest_error(backend: Backend, shape: Shape, case: Case) -> float:
    """Largest difference of a backend's outputs to the float32 oracle's on equal numbers."""
    torch.manual_seed(0)
    sequences = ragged(shape.past, shape.prefill)
    storage = store(shape, sequences)
    batch = lay_out(storage, sequences)
    query, key, value = inputs(shape, batch.num_rows)
    sinks = torch.randn(shape.heads, device=shape.device) if case.sinks else None
    call = LayerCall(1, shape.head_dim**-0.5, case.scope, case.softcap, sinks)
    prompts = [PROMPTS, PROMPTS - 3]
    expected = ReferenceStep(batch, storage, prompts).forward(query.float(), key, value, call)
    found = backend(batch, storage, prompts).forward(query, key, value, call)
    return float((found.float() - expected).abs().max())


def real_shapes() -> dict[str, Shape]:
    """Attention shapes of models people serve, in float32."""
    llama3 = Shape()
    return {
        "Llama-3-8B": llama3,
        "Llama-2-7B": replace(llama3, kv_heads=32),
        "Gemma-2-9B": replace(llama3, heads=16, head_dim=256),
        "Phi-3-mini": replace(llama3, kv_heads=32, head_dim=96),
        "gpt-bigcode": replace(llama3, heads=48, kv_heads=1),
    }
