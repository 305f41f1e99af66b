"""A BiTA adapter on disk: `adapter_model.safetensors` and `adapter_config.json`.

Everything is checked against the base model before a tensor is read. Safetensors only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adapters.errors import AdapterFormatError, AdapterMismatch
from adapters.profile import HitProfile
from adapters.successor import Successor

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FORMAT = "bita-1"
PREFIX = "successor_"
MAX_CONFIG_BYTES = 1 << 20
MAX_PROMPTS = 1024
MAX_MASKS = 16
MAX_RANK = 1024
MIN_DRAFT_TOKENS = 32
"""More than a node has children in any tree."""
# Finite in every dtype a model has, and so are its products: one row that is not would spoil all.
MAX_VALUE = 2.0**15
DTYPES = ("F32", "F16", "BF16")
DRAFT_TOKENS = "draft_tokens"


@dataclass(frozen=True, slots=True)
class BaseShape:
    """What must agree between an adapter and its base model."""

    model_type: str
    hidden_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int


@dataclass(frozen=True)
class AdapterConfig(BaseShape):
    """Identity of the base, sizes, and what was measured.

    num_prompts, num_masks: prompt K/V pairs a layer and mask embeddings.
    successor_rank: of the successor head, 0 without one.
    num_draft_tokens: of the draft vocabulary, 0 where all tokens are drafted.
    profile: measured hit rates. tuning: recipe and results, for people.
    """

    num_prompts: int
    num_masks: int
    profile: HitProfile
    successor_rank: int = 0
    num_draft_tokens: int = 0
    tuning: dict[str, Any] = field(default_factory=dict)

    @property
    def draft_share(self) -> float:
        """The part of the vocabulary that masks draft from."""
        return (self.num_draft_tokens or self.vocab_size) / self.vocab_size

    def check_base(self, base: BaseShape) -> None:
        """Raises AdapterMismatch where the base model is another one."""
        for f in fields(BaseShape):
            mine, theirs = getattr(self, f.name), getattr(base, f.name)
            if mine != theirs:
                raise AdapterMismatch(f"{f.name}: adapter has {mine!r}, the model has {theirs!r}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor names and shapes the weights file must hold, no more and no less."""
        prompts = (self.num_layers, 2, self.num_kv_heads, self.num_prompts, self.head_dim)
        shapes = {"prompt_kv": prompts, "mask_embeddings": (self.num_masks, self.hidden_size)}
        if self.successor_rank:
            own = Successor.shapes(self.hidden_size, self.num_masks, self.successor_rank)
            shapes |= {PREFIX + name: shape for name, shape in own.items()}
        if self.num_draft_tokens:
            shapes[DRAFT_TOKENS] = (self.num_draft_tokens,)
        return shapes


@dataclass(frozen=True)
class BitaAdapter:
    """prompt_kv: float32 `[layers, 2, kv_heads, prompts, head_dim]`, keys un-rotated.

    mask_embeddings: float32 `[masks, hidden]`, in the space of the model's `inputs_embeds`.
    successor: the head that follows a path's tokens, where the adapter has one.
    draft_tokens: int64 `[num_draft_tokens]`, ascending: the only tokens that masks draft, so that
        drafting takes a part of the output projection (FR-Spec, arXiv 2502.14856); None for all.
    """

    config: AdapterConfig
    prompt_kv: Tensor
    mask_embeddings: Tensor
    successor: Successor | None = None
    draft_tokens: Tensor | None = None

    def save(self, folder: str | Path) -> None:
        """Write both files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"prompt_kv": self.prompt_kv, "mask_embeddings": self.mask_embeddings}
        if self.successor is not None:
            tensors |= {PREFIX + name: t for name, t in self.successor.tensors().items()}
        content = {name: t.detach().float().contiguous() for name, t in tensors.items()}
        if self.draft_tokens is not None:
            content[DRAFT_TOKENS] = self.draft_tokens.int()
        (folder / WEIGHTS).write_bytes(save(content))  # `save_file` would keep it from other users
        record = {"format": FORMAT, **asdict(self.config)}
        (folder / CONFIG).write_text(json.dumps(record, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path, base: BaseShape | None = None) -> BitaAdapter:
        """Read an adapter; with `base`, only if it belongs to it.

        Raises AdapterFormatError or AdapterMismatch, before any tensor is allocated unless its
        values are not finite or beyond `MAX_VALUE`.
        """
        folder = Path(folder)
        config = _read_config(folder / CONFIG)
        if base is not None:
            config.check_base(base)
        tensors = _read_tensors(folder / WEIGHTS, config)
        successor = None
        if config.successor_rank:
            own = Successor.shapes(0, 0, 0)
            successor = Successor(**{name: tensors[PREFIX + name] for name in own})
        draft_tokens = tensors.get(DRAFT_TOKENS)
        return cls(
            config, tensors["prompt_kv"], tensors["mask_embeddings"], successor, draft_tokens
        )


def _read_config(file: Path) -> AdapterConfig:
    if not file.is_file():
        raise AdapterFormatError(f"{file} is missing: not a BiTA adapter folder")
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise AdapterFormatError(f"{file.name} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        data = json.loads(file.read_text())
        if data.pop("format", None) != FORMAT:
            raise AdapterFormatError(f"{file.name}: format must be {FORMAT!r}")
        config = AdapterConfig(**{**data, "profile": HitProfile(**data["profile"])})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AdapterFormatError(f"{file.name}: {error}") from error
    for name, most in (("num_prompts", MAX_PROMPTS), ("num_masks", MAX_MASKS)):
        value = getattr(config, name)
        if not isinstance(value, int) or not 1 <= value <= most:
            raise AdapterFormatError(f"{file.name}: {name} must be 1 to {most}, not {value!r}")
    rank = config.successor_rank
    if not isinstance(rank, int) or not 0 <= rank <= MAX_RANK:
        raise AdapterFormatError(f"{file.name}: successor_rank must be 0 to {MAX_RANK}")
    drafted = config.num_draft_tokens
    if not isinstance(drafted, int) or not (drafted == 0 or drafted >= MIN_DRAFT_TOKENS):
        raise AdapterFormatError(
            f"{file.name}: num_draft_tokens must be 0, or at least {MIN_DRAFT_TOKENS}"
        )
    if len(config.profile.rates) != config.num_masks:
        raise AdapterFormatError(f"{file.name}: the hit profile needs {config.num_masks} depths")
    return config


def _read_tensors(file: Path, config: AdapterConfig) -> dict[str, Tensor]:
    shapes = config.shapes()
    if not file.is_file():
        raise AdapterFormatError(f"{file} is missing")
    try:
        with safe_open(file, framework="pt") as weights:
            names = set(weights.keys())
            if names != set(shapes):
                raise AdapterFormatError(
                    f"{file.name} holds {sorted(names)}, expected {sorted(shapes)}"
                )
            for name, expected in shapes.items():
                part = weights.get_slice(name)
                if tuple(part.get_shape()) != expected:
                    raise AdapterFormatError(
                        f"{name}: shape {tuple(part.get_shape())}, expected {expected}"
                    )
                fitting = ("I32",) if name == DRAFT_TOKENS else DTYPES
                if part.get_dtype() not in fitting:
                    raise AdapterFormatError(
                        f"{name}: dtype {part.get_dtype()}, expected {' or '.join(fitting)}"
                    )
            tensors = {name: weights.get_tensor(name) for name in shapes}
    except SafetensorError as error:
        raise AdapterFormatError(f"{file.name}: {error}") from error
    draft_tokens = tensors.pop(DRAFT_TOKENS, None)
    for name, tensor in tensors.items():
        tensors[name] = tensor.float()
        if not (tensors[name].abs() <= MAX_VALUE).all():
            raise AdapterFormatError(
                f"{name} has values that are not finite, or beyond {MAX_VALUE:.0f}"
            )
    if draft_tokens is not None:
        tensors[DRAFT_TOKENS] = draft_tokens = draft_tokens.long()
        if (draft_tokens.diff(prepend=-draft_tokens.new_ones(1)) <= 0).any():
            raise AdapterFormatError(f"{DRAFT_TOKENS} must be token ids in ascending order")
        if draft_tokens[-1] >= config.vocab_size:
            raise AdapterFormatError(f"{DRAFT_TOKENS} must be below {config.vocab_size}")
    return tensors
