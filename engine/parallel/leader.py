"""Rank 0: says what it does to the model, and does it."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from dataclasses import astuple
from functools import partial

import torch
from torch import Tensor, distributed

from adapters.successor import Successor
from engine.batch import ForwardBatch
from engine.config import EngineConfig
from engine.errors import UnsupportedModel
from engine.model.build import Build, Sizes, build_runner
from engine.model.loaded import LoadedModel
from engine.model.loader import read_config
from engine.model.runner import ModelOutput, ModelRunner, Route
from engine.model.selftest import SIZES, decodes_exactly, pick_route
from engine.parallel.group import Workers, share_threads
from engine.parallel.plan import check_shardable, pick_devices
from engine.parallel.shard import load_shard, shard_of_trial
from engine.parallel.wire import Op, pack_step
from engine.speculation.bita import Head, Layer


class LeadingRunner(ModelRunner):
    """A runner whose workers repeat what touches the model. `workers` is set by `lead`."""

    workers: Workers
    _source: Sequence[int] = ()
    _target: Sequence[int] = ()

    def set_adapter(self, slot: int, prompt_kv: Tensor, mask_embeddings: Tensor) -> None:
        """As `ModelRunner.set_adapter`; every rank keeps the prompts of its KV heads."""
        self.workers.tell(Op.PLACE, [slot, prompt_kv.shape[3], len(mask_embeddings)])
        for tensor in (prompt_kv, mask_embeddings):
            distributed.broadcast(tensor.to(self.mask_embeddings).contiguous(), 0)
        super().set_adapter(slot, prompt_kv, mask_embeddings)

    def execute(self, batch: ForwardBatch) -> ModelOutput:
        """As `ModelRunner.execute`."""
        self.workers.tell(Op.FORWARD, pack_step(batch, self._source, self._target))
        self._source = self._target = ()
        return super().execute(batch)

    def commit(self, source: Sequence[int], target: Sequence[int]) -> None:
        """As `ModelRunner.commit`; workers are told with the next forward, before which it is due.

        Nothing else that they do meanwhile reads the cache or writes the step buffer.
        """
        super().commit(source, target)
        self._source, self._target = source, target

    def clean_step_buffer(self) -> None:
        """As `ModelRunner.clean_step_buffer`, behind the commit that workers have not heard of."""
        self.workers.tell(Op.CLEAN, [*self._source, *self._target])
        self._source = self._target = ()
        super().clean_step_buffer()

    def embed(self, token_ids: Tensor) -> Tensor:
        """As `ModelRunner.embed`: every rank has a part of the vocabulary."""
        self.workers.tell(Op.EMBED, token_ids.tolist())
        return super().embed(token_ids)

    def project(self, hidden: Tensor) -> Tensor:
        """As `ModelRunner.project`: every rank has a part of the vocabulary."""
        self.workers.tell(Op.PROJECT, list(hidden.shape))
        hidden = hidden.contiguous()
        distributed.broadcast(hidden, 0)
        return super().project(hidden)

    def draft_head(self, tokens: Tensor | None, successor: Successor | None) -> Head:
        """Always the whole: a part of it would lie on any of the ranks."""
        return super().draft_head(None, successor)

    def token_reader(self, successor: Successor) -> Layer:
        """Worked out when it is asked: beside a running engine, other ranks cannot be asked."""
        return lambda tokens: successor.read_token(self.embed(tokens))


def load_sharded(config: EngineConfig) -> tuple[LoadedModel, Build]:
    """Start the workers, and load the model on all ranks; rank 0's part, and how to run it.

    The workers end with this process. Raises UnsupportedModel or EngineError, as far as can be
    before anything is started.
    """
    device = pick_devices(config)[0]
    whole = read_config(config.model)
    check_shardable(whole, config.tensor_parallel_size)
    if pick_route(whole.get_text_config()) is not Route.INTERFACE:
        raise UnsupportedModel(
            f"a {whole.model_type} model cannot be shared: its attention is its own"
        )
    workers = Workers(config)
    share_threads(config)
    try:
        workers.join(device)
        loaded = load_with(workers, config, device)
    except BaseException:
        workers.close()
        raise
    atexit.register(workers.close)
    return loaded, partial(lead, workers)


def load_with(workers: Workers, config: EngineConfig, device: torch.device) -> LoadedModel:
    """Rank 0's part of a model, once the self-test has passed on all ranks.

    Raises UnsupportedModel where it has not.
    """
    trial = shard_of_trial(config, 0, device)
    runner = lead(workers, trial.loaded, SIZES, "sdpa")
    if not decodes_exactly(trial, runner):
        raise UnsupportedModel(
            f"{trial.loaded.architecture} on {config.tensor_parallel_size} ranks gives other "
            "tokens than on one"
        )
    workers.tell(Op.END)
    return load_shard(config, 0, device)


def lead(workers: Workers, loaded: LoadedModel, sizes: Sizes, attention: str) -> ModelRunner:
    """A runner here and one like it on every worker."""
    workers.tell(Op.BUILD, [*astuple(sizes), attention == "triton"])
    runner = build_runner(loaded, sizes, attention, LeadingRunner)
    assert isinstance(runner, LeadingRunner)
    runner.workers = workers
    return runner
