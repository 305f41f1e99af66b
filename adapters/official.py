"""Checkpoints of the paper's official code (linfeng93/BiTA), and ours: there and back.

The official code saves the whole model. Of it, an adapter is

- `prefix_encoder.embedding.weight`, `[prompts, 2 * layers * hidden]`: per prompt, for each layer
  its K, then its V, each query head by query head (also where the model shares K/V heads); keys
  are used un-rotated, as ours are. Where the prefix was re-parameterised, `prefix_encoder.trans`
  is the two-layer net that makes those rows of shorter ones;
- `mask_tokens.weight` (Falcon: `mask_embeddings.weight`), `[masks, hidden]`, or one row that all
  masks share.

Our prompts are kept by K/V head. With as many K/V heads as query heads that is the same thing.
Where query heads share a K/V head, the official prompts fit only if they agree within each group;
otherwise there is no exact adapter of ours, and none is made. The way back repeats each K/V
head's prompts and is always exact. The successor head has no place in the official layout.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.checkpoint import read_tensors
from adapters.errors import AdapterError, AdapterFormatError, AdapterMismatch
from adapters.format import MAX_MASKS, MAX_PROMPTS, AdapterConfig, BaseShape, BitaAdapter
from adapters.profile import prior

PROMPTS = "prefix_encoder.embedding.weight"
PROJECTION = tuple(
    f"prefix_encoder.trans.{i}.{part}" for i in (0, 2) for part in ("weight", "bias")
)
MASKS = ("mask_tokens.weight", "mask_embeddings.weight")
# Families the official code runs: where the tensors lie in the model, and what masks are called.
FAMILIES = {"llama": ("model", MASKS[0]), "falcon": ("transformer", MASKS[1])}
# Names of a Hugging Face configuration for what must agree.
CONFIG_FIELDS = {
    "model_type": "model_type",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_key_value_heads": "num_kv_heads",
    "vocab_size": "vocab_size",
}
ROPE_THETA = 10_000.0


def import_checkpoint(source: Path, base: BaseShape, num_heads: int) -> BitaAdapter:
    """The adapter in a checkpoint file or folder, for a base of `num_heads` query heads.

    Its hit rates are a prior, not measured. `config.tuning` tells where it comes from, with notes
    on what a user should know.
    Raises AdapterFormatError where `source` is no such checkpoint, AdapterMismatch where it
    belongs to another base, AdapterError where our format cannot hold it exactly.
    """
    _family(base)
    if num_heads * base.head_dim != base.hidden_size:
        raise AdapterError(
            f"{num_heads} heads of {base.head_dim} do not make up the hidden size "
            f"{base.hidden_size}, as the official code needs it"
        )
    official = _official_config(source, base)
    tensors = _tensors(source)
    prompts, masks = _prompts(tensors, source), _masks(tensors, official, source)
    expected = 2 * base.num_layers * base.hidden_size
    if prompts.shape[1] != expected or masks.shape[1] != base.hidden_size:
        raise AdapterMismatch(
            f"{source}: prompts of {prompts.shape[1]} and masks of {masks.shape[1]} numbers, where "
            f"{base.num_layers} layers of hidden size {base.hidden_size} need {expected} and "
            f"{base.hidden_size}"
        )
    split = prompts.view(-1, base.num_layers, 2, num_heads, base.head_dim)
    config = AdapterConfig(
        **asdict(base),
        num_prompts=len(prompts),
        num_masks=len(masks),
        profile=prior(len(masks)),
        tuning={"origin": "official BiTA checkpoint", "notes": _notes(base, official)},
    )
    prompt_kv = _by_kv_head(split.permute(1, 2, 3, 0, 4), base.num_kv_heads, source)
    return BitaAdapter(config, prompt_kv.contiguous(), masks.contiguous())


def export_tensors(adapter: BitaAdapter) -> dict[str, Tensor]:
    """Prompts and masks of an adapter, float32, by the names of the official checkpoint.

    The successor head is not among them. Raises AdapterError for a base the official code has no
    model for.
    """
    config = adapter.config
    module, masks = _family(config)
    heads, rest = divmod(config.hidden_size, config.head_dim)
    if rest or heads % config.num_kv_heads:
        raise AdapterError(
            f"hidden size {config.hidden_size} is not made up of heads of {config.head_dim} in "
            f"{config.num_kv_heads} groups, as the official code needs it"
        )
    by_head = adapter.prompt_kv.repeat_interleave(heads // config.num_kv_heads, dim=2)
    rows = by_head.permute(3, 0, 1, 2, 4).reshape(config.num_prompts, -1)
    tensors = {PROMPTS: rows, masks: adapter.mask_embeddings}
    return {f"{module}.{k}": v.detach().float().contiguous() for k, v in tensors.items()}


def _family(base: BaseShape) -> tuple[str, str]:
    if base.model_type not in FAMILIES:
        known = " and ".join(FAMILIES)
        raise AdapterError(f"the official code has models of {known}, none of {base.model_type}")
    return FAMILIES[base.model_type]


def _official_config(source: Path, base: BaseShape) -> dict[str, Any]:
    """The configuration beside the weights, if any; it must be of the same base."""
    file = source / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text())
        given = {ours: config[name] for name, ours in CONFIG_FIELDS.items() if name in config}
    except (ValueError, TypeError, RecursionError) as error:
        raise AdapterFormatError(f"{file}: {error}") from error
    for field, value in given.items():
        if value != getattr(base, field):
            raise AdapterMismatch(
                f"{file}: {field} is {value!r}, but {getattr(base, field)!r} in the model"
            )
    return dict(config)


def _tensors(source: Path) -> dict[str, Tensor]:
    """What makes up the adapter, by its name within the model."""
    names = (PROMPTS, *PROJECTION, *MASKS)
    found: dict[str, Tensor] = {}
    for name, tensor in read_tensors(source, lambda name: _short(name, names) != "").items():
        short = _short(name, names)
        if short in found:
            raise AdapterFormatError(f"{source} holds {short} more than once")
        found[short] = tensor
    return found


def _short(name: str, names: tuple[str, ...]) -> str:
    """Which of `names` a tensor is, whatever modules it is nested in; or nothing."""
    return next((n for n in names if name == n or name.endswith("." + n)), "")


def _prompts(tensors: dict[str, Tensor], source: Path) -> Tensor:
    """Rows of all layers' K and V, float32 `[prompts, width]`."""
    rows = _matrix(tensors, PROMPTS, MAX_PROMPTS, source)
    net = [tensors[name] for name in PROJECTION if name in tensors]
    if not net:
        return rows
    try:
        inner_weight, inner_bias, outer_weight, outer_bias = net
        return torch.tanh(rows @ inner_weight.T + inner_bias) @ outer_weight.T + outer_bias
    except (RuntimeError, ValueError) as error:
        raise AdapterFormatError(f"{source}: prefix_encoder.trans is not whole") from error


def _masks(tensors: dict[str, Tensor], official: dict[str, Any], source: Path) -> Tensor:
    """float32 `[masks, hidden]`; a row that all masks share is repeated."""
    name = next((name for name in MASKS if name in tensors), MASKS[0])
    rows = _matrix(tensors, name, MAX_MASKS, source)
    count = official.get("mask_num", len(rows))
    if count == len(rows):
        return rows
    if len(rows) == 1 and isinstance(count, int) and 1 <= count <= MAX_MASKS:
        return rows.expand(count, -1)
    raise AdapterFormatError(f"{source}: {len(rows)} mask embeddings, mask_num is {count!r}")


def _matrix(tensors: dict[str, Tensor], name: str, most: int, source: Path) -> Tensor:
    if name not in tensors:
        raise AdapterFormatError(
            f"{source} holds no {name}: not a checkpoint of the paper's official code"
        )
    shape = tuple(tensors[name].shape)
    if len(shape) != 2 or not 1 <= shape[0] <= most:
        raise AdapterFormatError(f"{source}: {name} has shape {shape}, not 1 to {most} rows")
    return tensors[name]


def _by_kv_head(by_head: Tensor, kv_heads: int, source: Path) -> Tensor:
    """`[layers, 2, heads, prompts, head_dim]` -> `[layers, 2, kv_heads, ...]`, exactly.

    Query heads of a group lie side by side. Raises AdapterError where they differ.
    """
    groups = by_head.unflatten(2, (kv_heads, -1))
    first = groups[:, :, :, :1]
    difference = float((groups - first).abs().max())
    if difference:
        raise AdapterError(
            f"{source}: {groups.shape[3]} query heads share a K/V head in this model, and their "
            f"prompts differ (by up to {difference:.3g}); adapters keep prompts by K/V head, so "
            "that this one has no exact counterpart"
        )
    return first[:, :, :, 0]


def _notes(base: BaseShape, official: dict[str, Any]) -> list[str]:
    notes = []
    theta = official.get("rope_theta", ROPE_THETA)
    if theta != ROPE_THETA:
        notes.append(
            f"The official code ignores rope_theta ({theta}): this adapter was trained on a base "
            "that reads positions otherwise, and will draft badly."
        )
    if base.model_type == "falcon":
        notes.append(
            "The official code as released does not train Falcon's mask embeddings, only the "
            "prompts."
        )
    return notes
