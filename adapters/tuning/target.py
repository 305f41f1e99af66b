"""The frozen model as tuning sees it: real rows once without gradient, mask rows with.

Real rows never see masks or prompts, so their K/V do not depend on what is trained: `context`
computes them once, and every step runs only mask rows against them. Works on any transformers
causal LM that uses its attention interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from adapters.errors import AdapterError
from adapters.projection import LogitRule

NAME = "bita_tuning"
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Context:
    """K/V of real rows. keys, values: a layer's `[samples, kv_heads, tokens, head_dim]` each."""

    keys: list[Tensor]
    values: list[Tensor]


class _ContextPass:
    """Real rows: causal attention, K/V kept."""

    def __init__(self) -> None:
        self.kept = Context([], [])

    def forward(self, layer: _Layer, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.kept.keys.append(key)
        self.kept.values.append(value)
        tokens = torch.arange(query.shape[2], device=query.device)
        seen = tokens[:, None] >= tokens
        if layer.window is not None:
            seen &= tokens[:, None] - tokens < layer.window
        return _attend(layer, query, key, value, seen)


class _MaskPass:
    """Mask rows: the context's K/V, their own, and the prompts."""

    def __init__(
        self, context: Context, prompt_kv: Tensor, visible: Tensor, positions: Tensor
    ) -> None:
        self.context, self.prompt_kv, self.visible = context, prompt_kv, visible
        tokens = torch.arange(context.keys[0].shape[2], device=positions.device)
        columns = torch.cat([tokens.expand(len(positions), -1), positions], dim=1)
        self.distance = positions[:, :, None] - columns[:, None]

    def forward(self, layer: _Layer, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        prompts = self.prompt_kv[layer.index].to(key.dtype)[:, None]
        shape = (-1, len(key), -1, -1, -1)
        prompt_keys, prompt_values = prompts.expand(shape)
        seen = self.visible
        if layer.window is not None:
            seen = seen & (self.distance < layer.window)
        seen = functional.pad(seen, (0, prompts.shape[3]), value=True)[:, None]
        keys = torch.cat([self.context.keys[layer.index], key, prompt_keys], dim=2)
        values = torch.cat([self.context.values[layer.index], value, prompt_values], dim=2)
        return _attend(layer, query, keys, values, seen)


@dataclass(frozen=True, slots=True)
class _Layer:
    index: int
    scaling: float
    window: int | None
    softcap: float | None


_current: ContextVar[_ContextPass | _MaskPass] = ContextVar("tuning_pass")


@contextmanager
def _running(step: _ContextPass | _MaskPass) -> Iterator[None]:
    token = _current.set(step)
    try:
        yield
    finally:
        _current.reset(token)


def _attend(layer: _Layer, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Grouped-query attention: `[samples, heads, rows, dim]` -> the same; `seen` is bool."""
    if layer.softcap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, scale=layer.scaling, enable_gqa=True
        )
    share = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(share, dim=1) for t in (key, value))
    scores = layer.softcap * torch.tanh(query @ key.mT * layer.scaling / layer.softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value


def _attention(
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
    """transformers' attention function; the pass set around the forward does the work."""
    if s_aux is not None:
        raise AdapterError("a model with attention sinks cannot be tuned")
    index: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = _Layer(index, scale, sliding_window, softcap)
    return _current.get().forward(layer, query, key, value).transpose(1, 2), None


AttentionInterface.register(NAME, _attention)


class TargetModel:
    """A frozen causal LM; to restore the model's own attention when done is the caller's affair.

    device, dtype: of what its embedding returns, which is what it computes in. Its weights may be
    of any other kind: nothing here looks at them.
    Raises AdapterError where the model does not use transformers' attention interface, or asks
    more of attention than windows and capped scores.
    """

    def __init__(self, model: Any) -> None:
        model.requires_grad_(False).eval().set_attn_implementation(NAME)
        self.model = model
        self.config = model.config.get_text_config()
        self.logit_rule = LogitRule.of(self.config)
        self.embedding: nn.Module = model.get_input_embeddings()
        self.head: nn.Module = model.get_output_embeddings()
        weights = (*self.embedding.parameters(), *self.embedding.buffers())
        self.device: torch.device = weights[0].device
        self.dtype = self._embedded(torch.zeros(1, dtype=torch.int64)).dtype
        chunks = "chunked_attention" in (getattr(self.config, "layer_types", None) or ())
        if chunks or not self.context(torch.zeros(1, 1, dtype=torch.int64)).keys:
            raise AdapterError(
                f"{model.config.model_type} cannot be tuned: its attention is its own"
            )

    def _embedded(self, token_ids: Tensor) -> Tensor:
        with torch.no_grad():
            embedded: Tensor = self.embedding(token_ids.to(self.device))
        return embedded

    def token_statistics(self) -> tuple[Tensor, float]:
        """Mean over the vocabulary, float32 `[hidden]` on the CPU, and spread of all its values.

        In the space of `inputs_embeds`: some families scale rows when they look them up.
        """
        total, squares, count = torch.zeros(0), 0.0, self.config.vocab_size
        for first in range(0, count, ROWS_AT_ONCE):
            rows = self._embedded(torch.arange(first, min(first + ROWS_AT_ONCE, count))).float()
            sums = rows.sum(dim=0).cpu()
            total = total + sums if len(total) else sums
            squares += float(rows.double().square().sum())
        mean, width = total / count, len(total)
        variance = squares / (count * width) - float(mean.double().mean()) ** 2
        return mean, max(0.0, variance) ** 0.5

    @torch.no_grad()
    def context(self, token_ids: Tensor) -> Context:
        """K/V of real tokens, int64 `[samples, tokens]`, padded at the right."""
        step = _ContextPass()
        token_ids = token_ids.to(self.device)
        positions = torch.arange(token_ids.shape[1], device=self.device).expand_as(token_ids)
        with _running(step):
            self.model.base_model(
                inputs_embeds=self.embedding(token_ids), position_ids=positions, use_cache=False
            )
        return step.kept

    def masks(
        self,
        context: Context,
        embeddings: Tensor,
        positions: Tensor,
        visible: Tensor,
        prompt_kv: Tensor,
    ) -> Tensor:
        """Final hidden states of mask rows, `[samples, rows, hidden]`, with gradients.

        embeddings `[samples, rows, hidden]`, positions `[samples, rows]`, visible bool `[samples,
        rows, context + rows]`, prompt_kv `[layers, 2, kv_heads, prompts, head_dim]`.
        """
        step = _MaskPass(context, prompt_kv, visible, positions)
        with _running(step):
            output = self.model.base_model(
                inputs_embeds=embeddings, position_ids=positions, use_cache=False
            )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def project(self, hidden: Tensor) -> Tensor:
        """Logits of final hidden states, float32 `[..., vocab]`; gradients reach the states."""
        return self.logit_rule(self.head(hidden))
