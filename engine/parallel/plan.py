"""Which models can be sharded, found out before a weight is read."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from engine.config import EngineConfig
from engine.errors import EngineError, UnsupportedModel
from engine.model.facts import model_facts
from engine.model.loader import pick_device

EXTRA = "pip install 'bita-serve[parallel]'"


def check_shardable(config: Any, ranks: int) -> None:
    """Refuse what transformers has no plan for, by a model's transformers configuration.

    Raises UnsupportedModel, and EngineError where a package is missing.
    """
    _check_packages()
    text = config.get_text_config()
    facts, kind = model_facts(text), text.model_type
    if not getattr(text, "base_model_tp_plan", None):
        raise UnsupportedModel(
            f"{kind} models cannot be shared by {ranks} ranks: transformers has no tensor parallel "
            "plan for them"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise UnsupportedModel(f"quantised weights cannot be shared by {ranks} ranks")
    if kv_heads_of(text, 0, ranks) is None:
        raise UnsupportedModel(
            f"the model's {facts.num_kv_heads} KV heads cannot be shared evenly by {ranks} ranks"
        )


def kv_heads_of(config: Any, rank: int, ranks: int) -> range | None:
    """The KV heads that a rank computes; None where they cannot be shared evenly.

    Where a plan gathers what the projections give (Phi-3, OLMo 2) every rank has all heads.
    """
    from transformers.distributed.tensor_parallel import get_kv_heads_per_rank

    heads = model_facts(config).num_kv_heads
    own = get_kv_heads_per_rank(config.base_model_tp_plan, heads, ranks)
    if own is None:
        return None
    return range(heads) if own == heads else range(rank * own, (rank + 1) * own)


def pick_devices(config: EngineConfig) -> list[torch.device]:
    """A device for every rank. Raises EngineError where there are too few."""
    ranks = config.tensor_parallel_size
    if ":" in config.device:
        raise EngineError(
            f"{config.device} is one device: {ranks} ranks take theirs from cuda, of those that "
            "CUDA_VISIBLE_DEVICES leaves"
        )
    device, gpus = pick_device(config.device), torch.cuda.device_count()
    if device.type == "cpu":
        if gpus:  # transformers would put the shards there
            raise EngineError(
                f"{ranks} ranks on the CPU of a machine with GPUs take CUDA_VISIBLE_DEVICES=''"
            )
        return [device] * ranks
    if gpus < ranks:
        raise EngineError(f"{ranks} ranks take a GPU each, and torch sees {gpus}")
    return [torch.device("cuda", rank) for rank in range(ranks)]


def _check_packages() -> None:
    if find_spec("accelerate") is None:
        raise EngineError(f"tensor parallelism takes the package accelerate: {EXTRA}")
    try:
        from transformers.distributed.tensor_parallel import get_kv_heads_per_rank  # noqa: F401
    except ImportError as error:
        raise EngineError(f"tensor parallelism takes a newer transformers: {EXTRA}") from error
