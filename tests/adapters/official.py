"""Checkpoints as the paper's official code leaves them, and what it computes with them.

Written from the layout's description (design note sec. 1, 2.3, 2.4) and without ours: the prefix
becomes a cache of every query head's K/V in a stock model that shares no K/V heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from adapters.format import BaseShape

VOCAB, HIDDEN, LAYERS, HEADS, HEAD_DIM = 48, 32, 2, 4, 8
PROMPTS, MASKS = 5, 3
PREFIX_NAME = "model.prefix_encoder.embedding.weight"
MASKS_NAME = "model.mask_tokens.weight"


def llama(kv_heads: int = HEADS, vocab: int = VOCAB) -> Any:
    """Random weights in float32, large enough for attention to matter."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.mul_(10.0)
    return model


def shape(kv_heads: int = HEADS) -> BaseShape:
    """Of `llama`."""
    return BaseShape("llama", HIDDEN, LAYERS, kv_heads, HEAD_DIM, VOCAB)


def trained(kv_heads: int = HEADS) -> dict[str, Tensor]:
    """A random prefix and masks; query heads of a K/V group have the same prompts."""
    generator = torch.Generator().manual_seed(1)
    prefix = torch.randn(PROMPTS, 2 * LAYERS, kv_heads, 1, HEAD_DIM, generator=generator)
    prefix = prefix.expand(-1, -1, -1, HEADS // kv_heads, -1).reshape(PROMPTS, -1)
    return {PREFIX_NAME: prefix, MASKS_NAME: torch.randn(MASKS, HIDDEN, generator=generator)}


def checkpoint(model: Any, kv_heads: int = HEADS) -> dict[str, Tensor]:
    """The whole model with what was trained, as the official code saves it."""
    return {**model.state_dict(), **trained(kv_heads)}


def unshared(model: Any) -> Any:
    """The same function as `model`, with a K/V head for every query head."""
    whole = llama(HEADS)
    weights = model.state_dict()
    share = HEADS // model.config.num_key_value_heads
    for name in [n for n in weights if n.endswith(("k_proj.weight", "v_proj.weight"))]:
        heads = weights[name].view(-1, HEAD_DIM, HIDDEN)
        weights[name] = heads.repeat_interleave(share, dim=0).reshape(-1, HIDDEN)
    whole.load_state_dict(weights)
    return whole


@torch.no_grad()
def mask_logits(model: Any, tensors: dict[str, Tensor], token_ids: list[int]) -> Tensor:
    """Logits of the masks behind a text, float32 `[masks, vocab]`."""
    model = unshared(model)
    model.set_attn_implementation("eager")
    prefix, masks = tensors[PREFIX_NAME], tensors[MASKS_NAME]
    prompts = len(prefix)
    by_layer = prefix.view(1, prompts, 2 * LAYERS, HEADS, HEAD_DIM).permute(2, 0, 3, 1, 4).split(2)
    cache = DynamicCache()
    for layer, (key, value) in enumerate(by_layer):
        cache.update(key, value, layer)
    text, rows = len(token_ids), len(token_ids) + len(masks)
    seen = torch.zeros(rows, prompts + rows, dtype=torch.bool)
    seen[:, prompts:] = torch.ones(rows, rows).tril().bool()
    seen[text:, :prompts] = True
    embedded = model.get_input_embeddings()(torch.tensor(token_ids))
    output = model(
        inputs_embeds=torch.cat([embedded, masks])[None],
        position_ids=torch.arange(rows)[None],
        attention_mask=torch.zeros(seen.shape).masked_fill(~seen, -1e30)[None, None],
        past_key_values=cache,
        use_cache=True,
    )
    return output.logits[0, text:]
