"""The rule of who sees what, at which position (BiTA sec. 3; design note sec. 2.3, 2.4, 3.3).

Terms. A *node* is a real token: context, root or draft. A *mask group* is a run of mask rows
attached to a node; mask i of it stands i + 1 positions behind the node. *Prompt* rows are the
adapter's per-layer K/V: they have no position.

- a node sees its ancestors and itself;
- a mask sees its node's ancestors, its node, the earlier masks of its own group and itself;
- masks see the prompts, nodes never do.

Tuning and inference both call `lay_out`; there is no second statement of the rule.
Not for: tensors. Words here are Python integers of any width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Rows of one sequence: all nodes in order, then all masks group by group.

    positions: of each row, counted from the first node's position.
    words: of each row; bit j is set where the row sees row j.
    num_nodes: rows from here on are masks; only they see the adapter's prompts.
    """

    positions: list[int]
    words: list[int]
    num_nodes: int

    def sees_prompts(self, row: int) -> bool:
        """Whether a row sees the adapter's prompt K/V."""
        return row >= self.num_nodes


def lay_out(parents: Sequence[int], groups: Sequence[tuple[int, int]]) -> RowLayout:
    """Positions and visibility of nodes and the mask groups attached to them.

    parents: of each node, -1 for the first; a parent comes before its children.
    groups: (node, number of masks), in row order.
    """
    positions: list[int] = []
    words: list[int] = []
    for node, parent in enumerate(parents):
        positions.append(positions[parent] + 1 if parent >= 0 else 0)
        words.append((words[parent] if parent >= 0 else 0) | 1 << node)
    for node, masks in groups:
        word = words[node]
        for i in range(masks):
            word |= 1 << len(words)
            positions.append(positions[node] + 1 + i)
            words.append(word)
    return RowLayout(positions, words, len(parents))


def chain(length: int) -> range:
    """Parents of a plain run of `length` tokens: each the one before it."""
    return range(-1, length - 1)


def as_matrix(words: Sequence[int], width: int) -> NDArray[np.bool_]:
    """Words as a bool matrix `[words, width]`, bit 0 first."""
    size = -(-width // 8)
    packed = np.frombuffer(b"".join(w.to_bytes(size, "little") for w in words), np.uint8)
    bits = np.unpackbits(packed.reshape(len(words), size), axis=1, bitorder="little")
    return bits[:, :width].astype(np.bool_)
