"""One rank's shards of a model, by transformers' own plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from transformers.distributed import DistributedConfig

from engine.attention.interface import NAME
from engine.config import EngineConfig
from engine.model.allocator import keep_freed_memory
from engine.model.facts import model_facts
from engine.model.linears import lay_out
from engine.model.loaded import LoadedModel
from engine.model.loader import (
    end_tokens,
    pick_dtype,
    read_config,
    read_weights,
)
from engine.model.memory import free_memory
from engine.model.runner import Route
from engine.model.selftest import Trial, random_trial, shrink
from engine.parallel.plan import kv_heads_of
from engine.parallel.vocabulary import shorten, unwrap


def load_shard(config: EngineConfig, rank: int, device: torch.device) -> LoadedModel:
    """This rank's part of the model of a folder; all ranks call it together.

    Raises UnsupportedModel where it cannot be loaded whole.
    """
    folder, ranks = Path(config.model), config.tensor_parallel_size
    precision = pick_dtype(config.dtype, device)
    whole = read_config(folder)
    text = whole.get_text_config()
    model = read_weights(folder, precision, NAME, distributed_config=_shared(ranks))
    _plain(model)
    if device.type == "cpu":
        lay_out(model)
        keep_freed_memory()
    return LoadedModel(
        model=model,
        facts=model_facts(text),
        route=Route.INTERFACE,
        architecture=(whole.architectures or [type(model).__name__])[0],
        eos_token_ids=end_tokens(folder, text),
        dtype=precision,
        device=device,
        ranks=ranks,
        kv_heads=kv_heads_of(text, rank, ranks),
        free_memory=_least_free(device),
    )


def shard_of_trial(config: EngineConfig, rank: int, device: torch.device) -> Trial:
    """This rank's part of the random model that the self-test decodes with."""
    ranks = config.tensor_parallel_size
    tiny = shrink(read_config(config.model).get_text_config(), ranks)
    trial = random_trial(tiny, Route.INTERFACE)
    whole = trial.loaded.model
    model = type(whole).from_pretrained(
        None,
        config=whole.config,
        state_dict=whole.state_dict(),
        dtype=torch.float32,
        attn_implementation=NAME,
        distributed_config=_shared(ranks),
    )
    _plain(model.requires_grad_(False).eval())
    heads = kv_heads_of(tiny, rank, ranks)
    return replace(
        trial,
        loaded=replace(trial.loaded, model=model, device=device, ranks=ranks, kv_heads=heads),
    )


def _shared(ranks: int) -> DistributedConfig:
    return DistributedConfig(tp_plan="auto", tp_size=ranks)


def _plain(model: Any) -> None:
    """Linear layers keep their shards as plain tensors, which is what they multiply with anyway.

    transformers would unwrap them anew in every forward, some microseconds a layer.
    """
    shorten(model)
    for module in model.modules():
        if type(module) is nn.Linear:
            unwrap(module)


def _least_free(device: torch.device) -> int:
    least = torch.tensor(free_memory(device), device=device)
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    return int(least)
