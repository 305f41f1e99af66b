"""A runner for a loaded model, with room for what its engine may ask of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from engine.attention.select import pick_backend
from engine.cache.storage import KVStorage
from engine.model.loaded import LoadedModel
from engine.model.native import NativeRunner
from engine.model.runner import ModelRunner


@dataclass(frozen=True, slots=True)
class Sizes:
    """Room in a runner. All numbers, so that other ranks can be told.

    num_blocks: KV blocks of block_size tokens. adapter_slots: with up to max_prompts and max_masks
        each. step_rows, max_segments: rows and sequences of a forward. fixed_rows: as
        `ModelRunner`'s; with them, rows do not depend on each other either.
    """

    num_blocks: int
    block_size: int
    adapter_slots: int
    max_prompts: int
    max_masks: int
    step_rows: int
    max_segments: int
    fixed_rows: int = 0


Build: TypeAlias = Callable[[LoadedModel, Sizes, str], ModelRunner]
"""As `build_runner` with `kind` left out."""


def build_runner(
    loaded: LoadedModel, sizes: Sizes, attention: str, kind: type[ModelRunner] | None = None
) -> ModelRunner:
    """A runner with empty storage for this process's KV heads.

    attention: "sdpa" or "triton". kind: of the runner; None takes the one for the model. Raises
    EngineError where that cannot run.
    """
    kind = kind or (NativeRunner if loaded.native else ModelRunner)
    facts, heads = loaded.facts, loaded.own_kv_heads
    backend = pick_backend(attention, loaded.device, sizes.fixed_rows > 0)
    storage = KVStorage(
        num_layers=facts.num_layers,
        num_kv_heads=len(heads),
        key_dim=facts.head_dim,
        value_dim=facts.head_dim,
        num_blocks=sizes.num_blocks,
        block_size=sizes.block_size,
        adapter_slots=sizes.adapter_slots,
        max_prompts=sizes.max_prompts,
        step_rows=sizes.step_rows,
        max_segments=sizes.max_segments,
        dtype=loaded.dtype,
        device=loaded.device,
        kernels=attention == "triton",
    )
    return kind(
        loaded.model,
        storage,
        loaded.route,
        sizes.adapter_slots,
        sizes.max_masks,
        backend,
        heads,
        sizes.fixed_rows,
    )
