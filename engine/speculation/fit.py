"""The best static tree of at most N rows for an adapter's measured hit rates.

Nodes and mask groups are chosen together. A trimmed group is paid for one step later: if its
node is the last accepted one, the next tree is only as deep as the group was long. That makes
the group length just used a Markov chain (PPD, arXiv 2405.18628, sec. 4.2 treats it so); a tree
is worth its stationary expectation. Trees grow greedily by the best gain a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from engine.speculation.tree import TreeTopology

Hits = Sequence[Sequence[float]]
HALF_STEPS = 1 << 14


def expected_length(topology: TreeTopology, hits: Hits) -> float:
    """Tokens a forward emits on average, the bonus token included.

    hits[d][r]: probability that the rank-r candidate of mask d is the next token, given that
    the tokens before it were drafted right.
    """
    trees = [topology.pruned(size) for size in range(len(hits) + 1)]
    shares = steady_state(trees, hits)
    return sum(
        share * sum(path_probabilities(tree, hits))
        for share, tree in zip(shares, trees, strict=True)
    )


def steady_state(trees: Sequence[TreeTopology], hits: Hits) -> list[float]:
    """How often each tree is run in the long run.

    trees[g]: what is run where the last accepted node had g masks; no deeper than g.
    """
    moves = []
    for tree in trees:
        reached = path_probabilities(tree, hits)
        move = [0.0] * len(trees)
        for node, size in enumerate(tree.masks):
            move[size] += max(0.0, reached[node] - sum(reached[c] for c in tree.children[node]))
        moves.append(move)
    # Half steps: trees that take turns would never settle in whole ones. Many, by squaring:
    # a tree that is seldom left, or seldom come back to, settles slowly.
    far = np.linalg.matrix_power((np.array(moves) + np.eye(len(trees))) / 2, HALF_STEPS)
    shares = far[-1] / far[-1].sum()
    return [float(share) for share in shares]


def fit_tree(hits: Hits, max_rows: int) -> TreeTopology:
    """The tree of at most `max_rows` rows with the greatest expected length found.

    With fewer rows than a root, a draft and its mask, that is the bare root: plain decoding.
    """
    # A full group behind the root is too much where rows are few: every length gets its try.
    sizes = range(min(len(hits), max_rows - 1) + 1)
    trees = [_grown(TreeTopology.root(size), hits, max_rows) for size in sizes]
    return max(trees, key=lambda tree: (round(expected_length(tree, hits), 6), -tree.num_rows))


def _grown(best: TreeTopology, hits: Hits, max_rows: int) -> TreeTopology:
    """The tree with what is the best gain a row, again and again."""
    best_length = expected_length(best, hits)
    while True:
        gains = []
        for grown in _neighbours(best, hits):
            rows = grown.num_rows - best.num_rows
            if grown.num_rows <= max_rows:
                length = expected_length(grown, hits)
                gains.append(((length - best_length) / rows, length, grown))
        if not gains:
            return best
        gain, length, grown = max(gains, key=lambda g: g[0])
        if gain <= 1e-6:
            return best
        best, best_length = grown, length


def _neighbours(topology: TreeTopology, hits: Hits) -> Iterator[TreeTopology]:
    """Trees with one more node (its group of any length), or with one longer group."""
    masks = len(hits)
    for node, size in enumerate(topology.masks):
        for longer in range(size + 1, masks + 1):
            groups = (*topology.masks[:node], longer, *topology.masks[node + 1 :])
            yield replace(topology, masks=groups)
    for parent, depth in enumerate(topology.depths):
        if depth == masks:
            continue
        taken = [r for r, p in zip(topology.ranks, topology.parents, strict=True) if p == parent]
        rank = len(taken)
        if rank < len(hits[depth]):
            for size in range(masks + 1):
                yield TreeTopology(
                    (*topology.parents, parent),
                    (*topology.ranks, rank),
                    (*topology.masks, size),
                )


def path_probabilities(topology: TreeTopology, hits: Hits) -> list[float]:
    """Probability that each node is accepted."""
    reached: list[float] = []
    for parent, rank, depth in zip(topology.parents, topology.ranks, topology.depths, strict=True):
        reached.append(reached[parent] * hits[depth - 1][rank] if parent >= 0 else 1.0)
    return reached
