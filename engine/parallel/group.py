"""How ranks meet, and what becomes of them when one is gone."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta

import torch
from torch import distributed

from engine.config import EngineConfig
from engine.parallel.wire import Numbers, Op, send

WORKER_MODULE = "engine.parallel.worker"
"""What a worker runs. Tests put a stub in its place."""
PATIENCE = timedelta(hours=2)
"""Ranks wait so long for each other's shards; who is gone is noticed at once."""
END_SECONDS = 10.0
LOOPBACK = "127.0.0.1"

log = logging.getLogger("bita.engine")


class Workers:
    """The leader's hold on the other ranks, which are started with it.

    on_death: called once, from another thread, when a worker ends before `close`.
    """

    def __init__(self, config: EngineConfig, on_death: Callable[[], None] | None = None) -> None:
        self.config = config
        self._on_death = on_death or _end_process
        self._closing = threading.Event()
        self._meeting = socket.create_server((LOOPBACK, 0))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[socket.socket] = []
        told = json.dumps(asdict(replace(config, adapters={}, max_adapters=0)))
        for rank in range(1, config.tensor_parallel_size):
            ours, theirs = socket.socketpair()
            where = (str(theirs.fileno()), str(rank), str(self.port))
            process = subprocess.Popen(
                [sys.executable, "-m", WORKER_MODULE, *where, told],
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def port(self) -> int:
        """Where ranks meet, on the loopback interface."""
        port: int = self._meeting.getsockname()[1]
        return port

    def join(self, device: torch.device) -> None:
        """Wait until all ranks are there; collectives work from then on."""
        join(0, self.config.tensor_parallel_size, self.port, device, self._meeting.detach())

    def tell(self, op: Op, numbers: Sequence[int] | Numbers = ()) -> None:
        """Have every worker do the same. Raises OSError where one is gone."""
        send(self._connections, op, numbers)

    def close(self) -> None:
        """End the workers, and wait until they are gone; once is enough."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._meeting.close()
        for connection in self._connections:
            # Closing alone would not be noticed while `_watch` waits on it.
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for process in self._processes:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        leave()

    def _watch(self) -> None:
        gone = select.poll()
        for connection in self._connections:
            gone.register(connection, select.POLLRDHUP)
        gone.poll()
        if self._closing.is_set():
            return
        for rank, process in enumerate(self._processes, 1):
            try:
                log.error("rank %d ended with status %d", rank, process.wait(0.5))
            except subprocess.TimeoutExpired:
                continue
        self._on_death()


def _end_process() -> None:
    """Whoever waits in a collective with a rank that is gone may wait forever."""
    os._exit(1)


def end_with(connection: socket.socket) -> None:
    """End this process as soon as the other end of a connection is closed."""

    def watch() -> None:
        gone = select.poll()
        gone.register(connection, select.POLLRDHUP)
        gone.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def join(
    rank: int, ranks: int, port: int, device: torch.device, listening: int | None = None
) -> None:
    """Become a rank of the default process group: nccl on GPUs, gloo on CPUs.

    listening: descriptor of a socket that listens at `port`, on rank 0 alone.
    """
    name = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    interfaces = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
    os.environ |= interfaces | {"LOCAL_RANK": str(rank)}  # by which transformers picks a GPU
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK,
        port,
        ranks,
        is_master=rank == 0,
        timeout=PATIENCE,
        wait_for_workers=False,
        master_listen_fd=listening,
    )
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=ranks,
        timeout=PATIENCE,
        device_id=device if on_gpu else None,
    )


def share_threads(config: EngineConfig) -> None:
    """Give this rank its part of the CPU threads."""
    threads = config.num_threads or torch.get_num_threads()
    torch.set_num_threads(max(1, threads // config.tensor_parallel_size))


def leave() -> None:
    """Part from the other ranks; nothing where there are none."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
