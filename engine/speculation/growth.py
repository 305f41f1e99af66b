"""From ranked children to draft trees: filling a given shape, or growing one by worth.

A row is worth the tokens it is expected to bring. For a draft node that is the probability that
it is accepted, the product of the drafters' probabilities on its path (OPT-Tree, arXiv
2406.17276; EAGLE-2, arXiv 2406.16858). For the m-th mask behind a node it is the probability that
the node is the last accepted one, times what a draft at depth m will bring a step later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.speculation.bita import Parent
from engine.speculation.tree import DraftTree, TreeTopology

WIDTH = 4
MAX_NODES = 32
MAX_ROWS = 64


class Ranker(Protocol):
    """Where children come from (`bita.Branches`). roots, sizes: bonus token and masks by tree."""

    roots: list[int]
    sizes: list[int]

    def rank(
        self, parents: Sequence[Parent], width: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """As `Branches.rank`."""
        ...


def fill(shape: TreeTopology, ranker: Ranker) -> list[DraftTree]:
    """`shape` filled with tokens for every tree, as deep as its mask group drafts."""
    shapes = [shape.pruned(size) for size in ranker.sizes]
    tokens = [[root] * len(s.parents) for root, s in zip(ranker.roots, shapes, strict=True)]
    numbers: dict[tuple[int, int], int] = {}
    for depth in range(max(max(s.depths) for s in shapes)):
        nodes = [
            (tree, node)
            for tree, s in enumerate(shapes)
            for node, d in enumerate(s.depths)
            if d == depth and s.children[node]
        ]
        ranked, _ = ranker.rank(
            [
                Parent(tree, tokens[tree][node], numbers.get((tree, shapes[tree].parents[node]), 0))
                for tree, node in nodes
            ],
            shape.num_ranks,
        )
        numbers = {key: number for number, key in enumerate(nodes)}
        for (tree, node), children in zip(nodes, ranked, strict=True):
            for child in shapes[tree].children[node]:
                tokens[tree][child] = children[shapes[tree].ranks[child]]
    return [DraftTree(tuple(t), s) for t, s in zip(tokens, shapes, strict=True)]


def grow(ranker: Ranker, threshold: float, promise: Sequence[float]) -> list[DraftTree]:
    """For every mask group the tree of all rows that are worth `threshold` tokens.

    promise[m]: probability that a draft at depth m + 1 of the step after will be accepted.
    """
    trees = [_Growing(root) for root in ranker.roots]
    frontier = [(tree, 0, 0) for tree in range(len(trees))]
    for depth in range(max(ranker.sizes)):
        frontier = [place for place in frontier if ranker.sizes[place[0]] > depth]
        if not frontier:
            break
        ranked = ranker.rank(
            [Parent(tree, trees[tree].tokens[node], before) for tree, node, before in frontier],
            WIDTH,
        )
        worthy = []
        for number, ((tree, node, _), tokens, shares) in enumerate(
            zip(frontier, *ranked, strict=True)
        ):
            for rank, (token, share) in enumerate(zip(tokens, shares, strict=True)):
                reached = trees[tree].reached[node] * share
                if reached < threshold:
                    break
                worthy.append((reached, tree, node, rank, token, number))
        frontier = []
        for reached, tree, node, rank, token, number in sorted(worthy, reverse=True):
            if len(trees[tree].tokens) < MAX_NODES:
                frontier.append((tree, trees[tree].add(node, rank, token, reached), number))
    return [tree.finished(threshold, promise) for tree in trees]


class _Growing:
    """A tree under growth. reached: probability that each node is accepted."""

    def __init__(self, root: int) -> None:
        self.tokens, self.parents, self.ranks, self.reached = [root], [-1], [0], [1.0]

    def add(self, parent: int, rank: int, token: int, reached: float) -> int:
        """A new node; its number."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.ranks.append(rank)
        self.reached.append(reached)
        return len(self.tokens) - 1

    def finished(self, threshold: float, promise: Sequence[float]) -> DraftTree:
        """With the mask groups that are worth it."""
        sizes = mask_groups(self.parents, self.reached, threshold, promise)
        topology = TreeTopology(tuple(self.parents), tuple(self.ranks), sizes)
        return DraftTree(tuple(self.tokens), topology)


def mask_groups(
    parents: Sequence[int], reached: Sequence[float], threshold: float, promise: Sequence[float]
) -> tuple[int, ...]:
    """Masks behind every node, given how probable it is that the node is accepted.

    What a mask makes possible costs a row of its own a step later: that is taken off.
    """
    last = list(reached)
    for node, parent in enumerate(parents):
        if parent >= 0:
            last[parent] -= reached[node]
    worth = [
        (last[node] * (chance - threshold), node)
        for node in range(len(parents))
        for chance in promise
    ]
    sizes = [0] * len(parents)
    for value, node in sorted(worth, reverse=True)[: MAX_ROWS - len(parents)]:
        sizes[node] += value >= threshold
    return tuple(sizes)
