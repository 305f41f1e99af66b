"""A model that is ready to run, whole or one rank's shards of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from engine.model.facts import ModelFacts
from engine.model.runner import Route


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """facts: of the whole model, on every rank. eos_token_ids: tokens that end its text.

    ranks: processes that hold shards of it (`engine.parallel`).
    kv_heads: the KV heads whose keys and values this process computes; None for all.
    native: whether our own CPU kernels compute its layers (`engine.model.native`).
    free_memory: bytes left on a device of the ranks after loading, on the one that has least; None
        where there is one rank, and one device to ask.
    """

    model: Any
    facts: ModelFacts
    route: Route
    architecture: str
    eos_token_ids: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    ranks: int = 1
    kv_heads: range | None = None
    native: bool = False
    free_memory: int | None = None

    @property
    def own_kv_heads(self) -> range:
        """The KV heads that this process computes, stores and attends to."""
        return range(self.facts.num_kv_heads) if self.kv_heads is None else self.kv_heads
