"""Ranks other than 0: a loop that repeats what the leader does to the model.

    python -m engine.parallel.worker FD RANK PORT CONFIG

FD is a socket to the leader, inherited; PORT is where ranks meet; CONFIG an `EngineConfig` in JSON.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
import traceback

import torch
from torch import distributed
from transformers.utils import logging as transformers_logging

from engine.config import EngineConfig
from engine.model.build import Sizes, build_runner
from engine.model.facts import ModelFacts
from engine.model.loaded import LoadedModel
from engine.model.runner import ModelRunner
from engine.parallel.group import end_with, join, share_threads
from engine.parallel.plan import pick_devices
from engine.parallel.shard import load_shard, shard_of_trial
from engine.parallel.wire import Numbers, Op, receive, unpack_step

GRACE_SECONDS = 1.0
"""What fails here mostly fails on the leader too, which then says why and closes the connection."""


def work(config: EngineConfig, rank: int, device: torch.device, connection: socket.socket) -> None:
    """One model's life on this rank: the self-test, the weights, and then requests."""
    follow(shard_of_trial(config, rank, device).loaded, connection)
    loaded = load_shard(config, rank, device)
    gc.freeze()
    follow(loaded, connection)


@torch.inference_mode()
def follow(loaded: LoadedModel, connection: socket.socket) -> None:
    """Build a runner and repeat what the leader does with its own, until it has no more use."""
    runner: ModelRunner | None = None
    while (message := receive(connection)) is not None:
        op, numbers = message
        if op is Op.END:
            return
        if op is Op.BUILD:
            *sizes, triton = numbers.tolist()
            runner = build_runner(loaded, Sizes(*sizes), "triton" if triton else "sdpa")
            continue
        assert runner is not None, "the leader builds first"
        _repeat(runner, loaded.facts, op, numbers)


def _repeat(runner: ModelRunner, facts: ModelFacts, op: Op, numbers: Numbers) -> None:
    if op is Op.FORWARD:
        batch, source, target = unpack_step(numbers)
        runner.commit(source, target)
        runner.execute(batch)
    elif op is Op.CLEAN:
        source, target = numbers.reshape(2, -1).tolist()
        runner.commit(source, target)
        runner.clean_step_buffer()
    elif op is Op.EMBED:
        runner.embed(torch.from_numpy(numbers).to(runner.device))
    elif op is Op.PROJECT:
        runner.project(_broadcast(runner, *numbers.tolist()))
    elif op is Op.PLACE:
        slot, prompts, masks = numbers.tolist()
        shape = (facts.num_layers, 2, facts.num_kv_heads, prompts, facts.head_dim)
        prompt_kv = _broadcast(runner, *shape)
        runner.set_adapter(slot, prompt_kv, _broadcast(runner, masks, facts.hidden_size))


def _broadcast(runner: ModelRunner, *shape: int) -> torch.Tensor:
    """What the leader sends, in the model's dtype."""
    like = runner.mask_embeddings
    tensor = torch.empty(shape, dtype=like.dtype, device=like.device)
    distributed.broadcast(tensor, 0)
    return tensor


def main() -> None:
    """Join the leader, and work until it is gone."""
    # Ctrl-C reaches the whole process group; the server decides when the engine stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor, rank, port = map(int, sys.argv[1:4])
    connection = socket.socket(fileno=descriptor)
    end_with(connection)
    transformers_logging.disable_progress_bar()
    try:
        config = EngineConfig(**json.loads(sys.argv[4]))
        device = pick_devices(config)[rank]
        share_threads(config)
        join(rank, config.tensor_parallel_size, port, device)
        work(config, rank, device, connection)
    except Exception:
        traceback.print_exc()
        time.sleep(GRACE_SECONDS)
        os._exit(1)


if __name__ == "__main__":
    main()
