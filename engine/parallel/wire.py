"""What a leader tells its workers, as arrays of integers over a socket.

A message is an operation and int64 numbers: two integers in front, the operation and the count, and
then the numbers, in the machine's own byte order, since both ends are on one machine.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from adapters.visibility import RowLayout
from engine.batch import ForwardBatch, Segment

Numbers = NDArray[np.int64]

HEADER = 2
NUM_ARRAYS = 9
NUM_FACTS = 10
WORD_BITS = 64
WORD_MASK = (1 << WORD_BITS) - 1


class Op(IntEnum):
    """What to do next.

    BUILD: a runner of `Sizes`. FORWARD: commit and execute (`pack_step`). EMBED: token ids.
    PROJECT: hidden states, broadcast behind, of so many rows and columns. PLACE: an adapter,
    broadcast behind: slot, prompts, masks. END: the runner is not used any more. CLEAN: commit,
    then forget the step buffer: slots of either, equally many.
    """

    BUILD = 0
    FORWARD = 1
    EMBED = 2
    PROJECT = 3
    PLACE = 4
    END = 5
    CLEAN = 6


def send(connections: Iterable[socket.socket], op: Op, numbers: Sequence[int] | Numbers) -> None:
    """The same message to every connection. Raises OSError where one is closed."""
    message = np.empty(HEADER + len(numbers), np.int64)
    message[:HEADER] = op, len(numbers)
    message[HEADER:] = numbers
    data = message.data.cast("B")
    for connection in connections:
        connection.sendall(data)


def receive(connection: socket.socket) -> tuple[Op, Numbers] | None:
    """The next message; None when the connection is closed."""
    header = _read(connection, HEADER)
    if header is None:
        return None
    numbers = _read(connection, int(header[1]))
    return None if numbers is None else (Op(int(header[0])), numbers)


def _read(connection: socket.socket, count: int) -> Numbers | None:
    numbers = np.empty(count, np.int64)
    view, done = numbers.data.cast("B") if count else memoryview(b""), 0
    while done < len(view):
        try:
            size = connection.recv_into(view[done:])
        except OSError:
            return None
        if not size:
            return None
        done += size
    return numbers


def pack_step(batch: ForwardBatch, source: Sequence[int], target: Sequence[int]) -> Numbers:
    """A forward, and the commit that comes before it, for `unpack_step`.

    source, target: slots of the step buffer and of the cache, equally many.
    """
    facts: list[list[int]] = []
    loose: list[Iterable[int]] = []
    for segment in batch.segments:
        layout = segment.layout
        words = layout.words if layout else []
        pieces = -(-max((word.bit_length() for word in words), default=0) // WORD_BITS)
        facts.append([
            segment.start, segment.num_rows, segment.num_causal, segment.num_past,
            segment.scratch_block, segment.adapter, len(segment.blocks),
            layout.num_nodes if layout else 0, len(words), pieces,
        ])  # fmt: skip
        loose += [segment.blocks, layout.positions if layout else []]
        loose.append(_signed(w >> p * WORD_BITS & WORD_MASK for w in words for p in range(pieces)))
    arrays = [
        np.array([source, target], np.int64).reshape(-1),
        *(batch.token_ids, batch.positions, batch.scratch_slots),
        *(batch.mask_rows, batch.mask_slots, batch.logit_rows),
        np.array(facts, np.int64).reshape(-1),
        np.fromiter(chain.from_iterable(loose), np.int64),
    ]
    return np.concatenate([np.array([len(a) for a in arrays], np.int64), *arrays])


def unpack_step(numbers: Numbers) -> tuple[ForwardBatch, list[int], list[int]]:
    """The forward that was packed, and the source and target of its commit."""
    cuts = np.cumsum(numbers[:NUM_ARRAYS])
    slots, ids, positions, scratch, *masks, facts, loose = np.split(numbers[NUM_ARRAYS:], cuts[:-1])
    mask_rows, mask_slots, logit_rows = masks
    segments = []
    rest = iter(loose.tolist())
    for fact in facts.reshape(-1, NUM_FACTS).tolist():
        start, num_rows, num_causal, num_past, scratch_block, adapter, num_blocks, *tree = fact
        num_nodes, num_words, pieces = tree
        blocks, positions_in_tree = list(islice(rest, num_blocks)), list(islice(rest, num_words))
        words = [
            sum((part & WORD_MASK) << p * WORD_BITS for p, part in enumerate(islice(rest, pieces)))
            for _ in range(num_words)
        ]
        layout = RowLayout(positions_in_tree, words, num_nodes) if words else None
        segments.append(
            Segment(start, num_rows, num_causal, num_past, layout, blocks, scratch_block, adapter)
        )
    batch = ForwardBatch(ids, positions, mask_rows, mask_slots, logit_rows, scratch, segments)
    source, target = slots.reshape(2, -1).tolist()
    return batch, source, target


def _signed(words: Iterable[int]) -> list[int]:
    """Unsigned 64-bit words as the signed numbers of the same bits."""
    return [word - (1 << WORD_BITS) if word >> (WORD_BITS - 1) else word for word in words]
