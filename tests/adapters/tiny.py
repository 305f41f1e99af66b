"""A tiny random model that answers greedily, and samples of its own answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from adapters.format import BaseShape
from adapters.tuning.layout import Sample

VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 48, 32, 2, 4, 2, 8

SHAPE = BaseShape(
    model_type="llama",
    hidden_size=HIDDEN,
    num_layers=LAYERS,
    num_kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    vocab_size=VOCAB,
)


def llama(seed: int = 0) -> Any:
    """Random weights in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=256,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


class Rounded(nn.Module):
    """A layer that keeps integers and a step size a row, as quantisers do: its weight is no float.

    lookup: an embedding; otherwise a linear layer without bias.
    """

    def __init__(self, weight: Tensor, lookup: bool) -> None:
        super().__init__()
        step = weight.float().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("weight", (weight.float() / step).round().to(torch.int8))
        self.register_buffer("step", step.to(weight.dtype))
        self.lookup = lookup

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(self.step.dtype) * self.step
        return weight[x] if self.lookup else x @ weight.T


def quantised(model: Any) -> Any:
    """The model with every linear layer and its embedding in 8 bit integers."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear | nn.Embedding):
                lookup = isinstance(child, nn.Embedding)
                setattr(module, name, Rounded(child.weight.detach(), lookup))
    return model


@torch.no_grad()
def answered(model: Any, count: int, seed: int = 0, length: int = 24) -> list[Sample]:
    """The model's own greedy answers of `length` tokens to random prompts of 8."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCAB, (count, 8), generator=generator)
    for _ in range(length):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(dim=-1)], dim=1)
    return [Sample(row, [(8, 8 + length)]) for row in ids.tolist()]


def noise(count: int, seed: int = 0) -> list[Sample]:
    """Random tokens with two answers each, of unequal lengths."""
    rng = random.Random(seed)
    samples = []
    for _ in range(count):
        cuts = sorted(rng.sample(range(2, 40), 4))
        tokens = [rng.randrange(VOCAB) for _ in range(rng.randint(cuts[-1], 44))]
        samples.append(Sample(tokens, [(cuts[0], cuts[1]), (cuts[2], cuts[3])]))
    return samples


class Successor:
    """An answer source without a model: answers count up to the end token 0."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def answers(
        self,
        prompts: Sequence[list[int]],
        max_tokens: int,
        temperatures: Sequence[float] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """From the last token of the prompt, up to `VOCAB - 1`, then 0."""
        self.asked += [list(p) for p in prompts]
        return [[*range(p[-1] + 1, VOCAB), 0][:max_tokens] for p in prompts]
