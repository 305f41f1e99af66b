"""What it takes to tell another rank of a step: our message, and torch.distributed's broadcasts.

    python -m benchmarks.rank_messages

Every way ends with the same acknowledgement, one byte over the socket, once the other rank has the
step unpacked. The broadcast sends the same packed array and its length before it; the object is the
same step, pickled.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import distributed

from benchmarks import report
from engine.batch import ForwardBatch, SegmentPlan
from engine.parallel import group
from engine.parallel.wire import Op, pack_step, receive, send, unpack_step
from engine.speculation.tree import TreeTopology

CPU = torch.device("cpu")
SIDES = ("message", "broadcast", "object")
STEPS = {"1 sequence": (1, 0), "16 sequences": (16, 0), "16 and a chunk of a prompt": (16, 1500)}
PAST, BLOCK = 1000, 16


def step(sequences: int, chunk: int) -> ForwardBatch:
    """Sequences that decode with the paper's tree after `PAST` tokens, and a prompt's chunk."""
    rng = random.Random(0)
    table = list(range(-(-PAST // BLOCK)))
    tree = TreeTopology.comb(5, 3).fill_with(7)
    plans = [SegmentPlan([], tree, PAST, table, 0) for _ in range(sequences)]
    if chunk:
        plans.append(SegmentPlan([rng.randrange(1000) for _ in range(chunk)], None, 0, [], 0))
    return ForwardBatch.build(plans, BLOCK, 4096, 16, 1 << 20)


def tell(side: str, connection: socket.socket, batch: ForwardBatch) -> None:
    """Send a step one way and wait until it has arrived."""
    if side == "object":
        distributed.broadcast_object_list([batch], 0)
    else:
        packed = pack_step(batch, [], [])
        if side == "message":
            send([connection], Op.FORWARD, packed)
        else:
            distributed.broadcast(torch.tensor([len(packed)]), 0)
            distributed.broadcast(torch.from_numpy(packed), 0)
    connection.recv(1)


def hear(side: str, connection: socket.socket) -> None:
    """The other end of `tell`."""
    if side == "object":
        box: list[Any] = [None]
        distributed.broadcast_object_list(box, 0)
    elif side == "message":
        message = receive(connection)
        assert message is not None
        unpack_step(message[1])
    else:
        count = torch.zeros(1, dtype=torch.int64)
        distributed.broadcast(count, 0)
        packed = torch.from_numpy(np.empty(int(count), np.int64))
        distributed.broadcast(packed, 0)
        unpack_step(packed.numpy())
    connection.sendall(b".")


def taken(run: Callable[[], None], repeats: int) -> float:
    """Median microseconds, the first runs not counted."""
    times = []
    for _ in range(repeats + repeats // 10):
        started = time.perf_counter()
        run()
        times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times[repeats // 10 :])


def peer(descriptor: int, port: int, repeats: int) -> None:
    """Rank 1."""
    torch.set_num_threads(1)
    group.join(1, 2, port, CPU)
    with socket.socket(fileno=descriptor) as connection:
        for _ in STEPS:
            for side in SIDES:
                for _ in range(repeats + repeats // 10):
                    hear(side, connection)
    group.leave()


def main() -> None:
    """Print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=500, help="messages a figure")
    parser.add_argument("--peer", type=int, nargs=2, help=argparse.SUPPRESS)
    report.add_arguments(parser)
    args = parser.parse_args()
    if args.peer:
        peer(*args.peer, args.repeats)
        return
    torch.set_num_threads(1)
    meeting = socket.create_server((group.LOOPBACK, 0))
    port = meeting.getsockname()[1]
    ours, theirs = socket.socketpair()
    where = ["--peer", str(theirs.fileno()), str(port), "--repeats", str(args.repeats)]
    command = [sys.executable, "-m", "benchmarks.rank_messages", *where]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    group.join(0, 2, port, CPU, meeting.detach())
    table = report.Table(
        "microseconds until another rank has a step", ("step", "rows", "KiB", *SIDES, "ratio")
    )
    results = []
    for name, shape in STEPS.items():
        batch = step(*shape)
        times = [taken(lambda s=s, b=batch: tell(s, ours, b), args.repeats) for s in SIDES]  # type: ignore[misc]
        size = pack_step(batch, [], []).nbytes / 1024
        results.append({"step": name, "rows": batch.num_rows, "KiB": size, "microseconds": times})
        table.add(name, batch.num_rows, size, *times, times[1] / times[0])
    report.publish([table], results, args.markdown)
    process.wait()
    group.leave()


if __name__ == "__main__":
    main()
