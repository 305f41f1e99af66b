"""What the engine has to know of a model's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.errors import UnsupportedModel

# Architectures whose layers carry a state from token to token: a tree would need one a branch.
RECURRENT = ("mamba", "rwkv", "linear_attention", "recurrent", "conv", "hybrid")


UNBOUNDED = 1 << 30


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Shapes of the KV cache and the longest position.

    hidden_size: of embeddings and final hidden states; the small OPT models are wider inside.
    max_positions: positions the model was made for, UNBOUNDED where the configuration names none.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    max_positions: int


def model_facts(config: Any) -> ModelFacts:
    """Read the facts from a transformers text configuration.

    Raises UnsupportedModel where layers are recurrent or attention biases go by column index.
    """
    _refuse(config)
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelFacts(
        num_layers=config.num_hidden_layers,
        num_kv_heads=_kv_heads(config, heads),
        head_dim=head_dim,
        hidden_size=getattr(config, "word_embed_proj_dim", None) or config.hidden_size,
        vocab_size=config.vocab_size,
        max_positions=getattr(config, "max_position_embeddings", None) or UNBOUNDED,
    )


def _kv_heads(config: Any, heads: int) -> int:
    if config.model_type == "falcon":
        if config.new_decoder_architecture:
            return int(config.num_kv_heads)
        return 1 if config.multi_query else int(heads)
    return int(getattr(config, "num_key_value_heads", None) or heads)


def _refuse(config: Any) -> None:
    kind = config.model_type
    layers = set(getattr(config, "layer_types", None) or ())
    recurrent = [word for word in RECURRENT if word in kind or any(word in t for t in layers)]
    if recurrent:
        raise UnsupportedModel(
            f"{kind} has recurrent or hybrid layers ({recurrent[0]}): their state runs through "
            "every token in order, so that a draft tree would need a copy of it a branch"
        )
    if kind in ("bloom", "mpt") or getattr(config, "alibi", False):
        raise UnsupportedModel(
            f"{kind} biases attention by the column's index (alibi), which is not a token's "
            "position in a packed draft tree"
        )
    if kind == "gpt_neo":
        raise UnsupportedModel("gpt_neo masks by column index with a buffer of its own")
