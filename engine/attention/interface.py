"""How our attention reaches transformers' models.

A model loaded with attention `NAME` calls `attend` in every layer. Since that name is not
registered with transformers' mask builders, no mask is built. What the step looks like is read
from a context variable set around the forward: two families (StableLM, Nemotron) drop keyword
arguments on the way. A compiled model calls the same code as an operator of its own, opaque to the
compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from engine.batch import ForwardBatch
from engine.cache.storage import KVStorage

NAME = "bita"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which columns a layer sees by position, beyond what the tree allows.

    window: positions back from a row, itself included; None for all.
    chunk: rows see only their own chunk of this many positions (Llama 4); None for all.
    """

    window: int | None = None
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class LayerCall:
    """What one layer asks of attention besides its q, k and v."""

    layer: int
    scaling: float
    scope: Scope
    softcap: float | None
    sinks: Tensor | None


class AttentionStep(Protocol):
    """A backend prepared for one batch."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, call: LayerCall) -> Tensor:
        """Store the fresh K/V and attend.

        query `[rows, heads, head_dim]`, key and value `[rows, kv_heads, head_dim]`
        -> `[rows, heads, value_dim]`.
        """
        ...


# Prepares a batch; the last argument is the prompts of each adapter slot.
Backend = Callable[[ForwardBatch, KVStorage, list[int]], AttentionStep]

# What a layer asks of attention is part of the model: read once, looked up in every step.
_calls: WeakKeyDictionary[nn.Module, LayerCall] = WeakKeyDictionary()
_current: ContextVar[AttentionStep] = ContextVar("attention_step")


@contextmanager
def attention_step(step: AttentionStep) -> Iterator[None]:
    """Let every layer called inside attend through `step`."""
    token = _current.set(step)
    try:
        yield
    finally:
        _current.reset(token)


def layer_scope(config: Any, layer: int, window: int | None) -> Scope:
    """The scope of a layer; Llama 4 tells of its chunks in the configuration alone."""
    kinds = getattr(config, "layer_types", None)
    if kinds and kinds[layer] == "chunked_attention":
        return Scope(chunk=config.attention_chunk_size)
    if kinds and kinds[layer] == "full_attention":
        return Scope()
    if kinds and kinds[layer] == "sliding_attention" and window is None:
        window = config.sliding_window
    return Scope(window=window)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: q `[1, heads, rows, dim]`, rotated; K/V not repeated."""
    if torch.compiler.is_compiling():
        call = _layer_call(module, query, scaling, sliding_window, softcap, s_aux)
        window, chunk = call.scope.window, call.scope.chunk
        out = _operator(query, key, value, call.layer, call.scaling, window, chunk, softcap, s_aux)
        return out, None
    found = _calls.get(module)
    if found is None:
        found = _calls[module] = _layer_call(module, query, scaling, sliding_window, softcap, s_aux)
    return _forward(query, key, value, found), None


def _layer_call(
    module: nn.Module,
    query: Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> LayerCall:
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scope = layer_scope(getattr(module, "config", None), layer, window)
    return LayerCall(layer, scale, scope, softcap, sinks)


def _forward(query: Tensor, key: Tensor, value: Tensor, call: LayerCall) -> Tensor:
    query, key, value = (t[0].transpose(0, 1) for t in (query, key, value))
    return _current.get().forward(query, key, value, call)[None]


@torch.library.custom_op("bita::attend", mutates_args=())
def _operator(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layer: int,
    scaling: float,
    window: int | None,
    chunk: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """`attend` for a compiled model; the step buffer it writes is nothing a graph knows of."""
    call = LayerCall(layer, scaling, Scope(window, chunk), softcap, sinks)
    return _forward(query, key, value, call).contiguous()


@_operator.register_fake
def _shape(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


AttentionInterface.register(NAME, attend)
