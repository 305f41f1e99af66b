"""What is told arrives as it was, and a closed connection is noticed."""

from __future__ import annotations

import random
import socket
from dataclasses import fields

import numpy as np
import pytest

from engine.batch import ForwardBatch, SegmentPlan
from engine.parallel.wire import Op, pack_step, receive, send, unpack_step
from engine.speculation.tree import TreeTopology

TREES = [
    None,
    TreeTopology.root(0),
    TreeTopology.chain(3),
    TreeTopology.comb(5, 3),
    TreeTopology.chain(13),  # 14 nodes and 182 masks: words of 196 bits
]


def batch_of(rng: random.Random, trees: list[TreeTopology | None]) -> ForwardBatch:
    plans = []
    for slot, topology in enumerate(trees):
        past = rng.randrange(40)
        causal = [rng.randrange(100) for _ in range(rng.randrange(1, 9))]
        tree = topology.fill_with(rng.randrange(100)) if topology else None
        blocks = rng.sample(range(50), -(-past // 4))
        plans.append(SegmentPlan(causal, tree, past, blocks, slot))
    return ForwardBatch.build(plans, 4, 64, 16, 30)


@pytest.mark.parametrize("trees", [TREES, [TREES[0]], [TREES[1]], TREES[::-1]])
def test_a_step_is_unpacked_as_it_was_packed(trees: list[TreeTopology | None]) -> None:
    batch = batch_of(random.Random(len(trees)), trees)
    source, target = [260, 261, 270], [4, 5, 16]
    told, *commit = unpack_step(pack_step(batch, source, target))
    assert commit == [source, target]
    assert told.segments == batch.segments
    for field in fields(ForwardBatch):
        if field.name != "segments":
            one, other = getattr(told, field.name), getattr(batch, field.name)
            assert one.dtype == other.dtype == np.int64
            assert one.tolist() == other.tolist(), field.name


def test_messages_arrive_whole_and_in_order_and_then_the_end() -> None:
    ours, theirs = socket.socketpair()
    send([ours], Op.FORWARD, np.arange(3000))
    send([ours], Op.END, ())
    ours.close()
    with theirs:
        first = receive(theirs)
        assert first is not None
        assert first[0] is Op.FORWARD
        assert first[1].tolist() == list(range(3000))
        last = receive(theirs)
        assert last is not None
        assert last[0] is Op.END
        assert not len(last[1])
        assert receive(theirs) is None


def test_a_message_that_was_cut_off_is_none() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(np.array([1, 7, 3], np.int64).tobytes())
    ours.close()
    with theirs:
        assert receive(theirs) is None


def test_who_is_gone_cannot_be_told() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(OSError):  # noqa: PT011 - whichever the system says
        send([ours], Op.END, ())
