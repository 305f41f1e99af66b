"""A vocabulary in shards: the embedding and the head, with one plain collective each.

Drafting asks both of them once a level. transformers' own way leads through distributed tensors,
which take longer to set up than the work they do on a few rows; it stays where the vocabulary is
not divided evenly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, Shard
from torch.nn import functional


def shorten(model: Any) -> None:
    """Replace the forwards of a sharded model's embedding and head."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    # Both first: a tied head has the embedding's weight.
    evenly = _divided(embedding.weight), type(head) is nn.Linear and _divided(head.weight)
    if evenly[0]:
        _shorten_embedding(embedding)
    if evenly[1]:
        _shorten_head(head)


def _divided(weight: Tensor) -> bool:
    """Whether every rank has equally many rows of a weight."""
    by_rows = isinstance(weight, DTensor) and weight.placements == (Shard(0),)
    return by_rows and len(weight) % distributed.get_world_size() == 0


def _shorten_embedding(embedding: nn.Embedding) -> None:
    unwrap(embedding)
    embedding.padding_idx = None  # of use in training alone, and perhaps another rank's
    rows = len(embedding.weight)
    first = distributed.get_rank() * rows
    look_up = type(embedding).forward  # some families scale what they find

    def forward(token_ids: Tensor) -> Tensor:
        own = token_ids - first
        elsewhere = (own < 0) | (own >= rows)
        found = look_up(embedding, own.masked_fill(elsewhere, 0))
        found = found.masked_fill(elsewhere[..., None], 0)
        distributed.all_reduce(found)
        return found

    embedding.forward = forward  # type: ignore[assignment]


def _shorten_head(head: nn.Linear) -> None:
    unwrap(head)
    ranks = distributed.get_world_size()

    def forward(hidden: Tensor) -> Tensor:
        own = functional.linear(hidden, head.weight, head.bias)
        parts = [torch.empty_like(own) for _ in range(ranks)]
        distributed.all_gather(parts, own)
        return torch.cat(parts, dim=-1)

    head.forward = forward  # type: ignore[assignment]


def unwrap(module: nn.Module) -> None:
    """Keep a module's own shards as plain tensors."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if isinstance(parameter, DTensor):
            own = nn.Parameter(parameter.to_local(), requires_grad=False)
            module.register_parameter(name, own)
