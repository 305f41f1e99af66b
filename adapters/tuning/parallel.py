"""Data parallel tuning: several processes with a copy of the model each, one adapter.

torch's own launcher starts them. What they share is small: the answers they generated, once, and
in each step the gradients of the few trainable tensors. Rank 0, the *leader*, writes all files;
the others read the same folder. Started without the launcher, everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from adapters.errors import AdapterError

T = TypeVar("T")
PATIENCE = timedelta(hours=24)
"""The slowest share of the answers may keep the others waiting so long."""


def join(device: str) -> str:
    """Meet the other processes, if the launcher started several; the device of this one.

    device: "auto", "cpu" or "cuda"; on GPUs each process of a machine takes its own. Raises
    AdapterError where one GPU is named for several processes, or a machine has too few.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        return device
    gpus, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if ":" in device:
        raise AdapterError(f"{device} is one device: several processes take theirs from 'cuda'")
    if device == "cuda" or (device == "auto" and gpus):
        if local >= gpus:
            raise AdapterError(f"this is process {local + 1} of a machine with {gpus} GPUs")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    return device


def leave() -> None:
    """Part from the other processes; nothing where there are none."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def world() -> int:
    """Number of processes."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if world() > 1 else 0


def leads() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


def shard(first: int = 0) -> slice:
    """This process's part of a list whose first item has number `first`: every world-th number.

    An item falls to the same process whatever list it is in, so that its context is kept there.
    """
    return slice((rank() - first) % world(), None, world())


def gather(part: Sequence[T]) -> list[T]:
    """The items of all processes, each of which has `shard()` of them, in their order."""
    if world() == 1:
        return list(part)
    parts: list[list[T]] = [[] for _ in range(world())]
    distributed.all_gather_object(parts, list(part))
    total = sum(map(len, parts))
    return [parts[i % world()][i // world()] for i in range(total)]


def of_leader(value: T) -> T:
    """The leader's value; all processes call this at the same place."""
    if world() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def average_gradients(parameters: Sequence[Tensor], loss: Tensor, count: Tensor) -> Tensor:
    """Average `.grad` of the parameters over all processes; the mean loss, a scalar.

    loss: of this process, a mean over `count` places. Weighted by counts, the result is what one
    process would have got from all places together.
    """
    if world() == 1:
        return loss
    gradients = [p.grad for p in parameters if p.grad is not None]
    own = [*(g.flatten() for g in gradients), loss.detach().reshape(1)]
    flat = torch.cat([torch.cat(own) * count, count.reshape(1).to(loss.dtype)])
    distributed.all_reduce(flat)
    flat /= flat[-1].clone()
    first = 0
    for gradient in gradients:
        gradient.copy_(flat[first : first + gradient.numel()].view_as(gradient))
        first += gradient.numel()
    return flat[-2]
