"""From ranked children to draft trees: filling a given shape, or growing one by worth.

A row is worth the tokens it is expected to bring. For a draft node that is the probability that
it is accepted, the product of the drafters' probabilities on its path (OPT-Tree, arXiv
2406.17276; EAGLE-2, arXiv 2406.16858). For the m-th mask behind a node it is the probability that
the node is the last accepted one, times what a draft at depth m will bring a step later.

Other sources (`drafter`) propose chains, which may be longer than masks reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from engine.speculation.bita import Parent
from engine.speculation.drafter import Chain
from engine.speculation.sources import BITA, GRAMMAR
from engine.speculation.tree import MAX_ROWS, DraftTree, TreeTopology

WIDTH = 4
MAX_NODES = 32


class Ranker(Protocol):
    """Where children come from (`bita.Branches`).

    roots, sizes, trusts: by tree its bonus token, its masks, and a factor on what they say.
    levels: ranked by now.
    """

    roots: list[int]
    sizes: list[int]
    trusts: list[float]
    levels: int

    def rank(
        self, parents: Sequence[Parent], width: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """As `Branches.rank`."""
        ...


class Unranked:
    """Stands for sequences whose masks say nothing."""

    def __init__(self, roots: list[int], trusts: list[float]) -> None:
        self.roots, self.sizes, self.trusts = roots, [0] * len(roots), trusts
        self.levels = 0

    def rank(
        self, parents: Sequence[Parent], width: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """As `Ranker.rank`."""
        raise AssertionError("there is nothing to rank")


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
    return [DraftTree(tuple(t), s, s.bita) for t, s in zip(tokens, shapes, strict=True)]


def grow(
    ranker: Ranker,
    threshold: float,
    promise: Sequence[float],
    chains: Sequence[Sequence[Chain]] = (),
    level: float = 0.0,
) -> list[DraftTree]:
    """For every mask group the tree of all rows that are worth `threshold` tokens.

    promise[m]: probability that a draft at depth m + 1 of the step after will be accepted.
    chains: what other sources propose for every tree. They are merged in by token, level by level
    with the masks' children, and go on alone below them.
    level: tokens that a level must be able to bring, all trees together, to be ranked.
    """
    trees = [
        _Growing(root, own, len(promise))
        for root, own in zip(ranker.roots, chains or [()] * len(ranker.roots), strict=True)
    ]
    frontier = [(tree, 0, 0) for tree in range(len(trees))]
    for depth in range(max(ranker.sizes)):
        frontier = [place for place in frontier if ranker.sizes[place[0]] > depth]
        if (
            sum(trees[tree].reached[node] * ranker.trusts[tree] for tree, node, _ in frontier)
            <= level
        ):
            break
        ranked = ranker.rank(
            [Parent(tree, trees[tree].tokens[node], before) for tree, node, before in frontier],
            WIDTH,
        )
        worthy = []
        for number, ((tree, node, _), tokens, shares) in enumerate(
            zip(frontier, *ranked, strict=True)
        ):
            scaled = [share * ranker.trusts[tree] for share in shares]
            children = trees[tree].children(node, depth, zip(tokens, scaled, strict=True))
            for rank, (share, token, sources, going_on) in enumerate(children):
                reached = trees[tree].reached[node] * share
                if reached < threshold:
                    break
                worthy.append((reached, tree, node, rank, token, number, sources, going_on))
        frontier = []
        for reached, tree, node, rank, token, number, sources, going_on in sorted(
            worthy, key=lambda child: child[:6], reverse=True
        ):
            if trees[tree].has_room(sources):
                added = trees[tree].add(node, rank, token, reached, sources, going_on, depth + 1)
                frontier.append((tree, added, number))
    return [
        tree.finished(threshold, trusted(promise, trust))
        for tree, trust in zip(trees, ranker.trusts, strict=True)
    ]


def trusted(promise: Sequence[float], trust: float) -> list[float]:
    """`promise` where every draft is only `trust` times as likely to be right."""
    return [chance * trust ** (depth + 1) for depth, chance in enumerate(promise)]


# A child: its share, token, sources, and the chains that go through it.
_Child = tuple[float, int, int, list[Chain]]


class _Growing:
    """A tree under growth. reached: probability that each node is accepted.

    open: depth and chains of the nodes whose children have not been looked at.
    cut: share of a chain's next token, by the node where the chain became too unlikely.
    """

    def __init__(self, root: int, chains: Sequence[Chain], masks: int) -> None:
        self.tokens, self.parents, self.ranks, self.reached = [root], [-1], [0], [1.0]
        self.sources = [0]
        self.open = {0: (0, list(chains))} if chains else {}
        self.cut: dict[int, float] = {}
        # A chain needs room for the masks behind its end.
        self.most = MAX_ROWS - masks

    def has_room(self, sources: int) -> bool:
        """Whether one more node fits; masks' own children leave room for masks."""
        return len(self.tokens) < (MAX_NODES if sources == BITA else self.most)

    def add(
        self,
        parent: int,
        rank: int,
        token: int,
        reached: float,
        sources: int,
        chains: list[Chain],
        depth: int,
    ) -> int:
        """A new node; its number."""
        node = len(self.tokens)
        self.tokens.append(token)
        self.parents.append(parent)
        self.ranks.append(rank)
        self.reached.append(reached)
        self.sources.append(sources)
        if chains:
            self.open[node] = (depth, chains)
        return node

    def children(self, node: int, depth: int, ranked: Iterable[tuple[int, float]]) -> list[_Child]:
        """The masks' children and the chains' of one node, merged by token, likeliest first.

        The likelier of two sources that agree is believed. Where they contradict each other, all
        are scaled: only one of them can come next. A grammar that forces a token is right.
        """
        merged: dict[int, _Child] = {token: (share, token, BITA, []) for token, share in ranked}
        _, chains = self.open.pop(node, (depth, []))
        if not chains:
            return list(merged.values())
        for chain in chains:
            if depth == len(chain.tokens):
                continue
            token = chain.tokens[depth]
            share, _, sources, going_on = merged.get(token, (0.0, token, 0, []))
            going_on.append(chain)
            merged[token] = (
                max(share, chain.shares[depth]),
                token,
                sources | chain.source,
                going_on,
            )
        if certain := [child for child in merged.values() if child[2] & GRAMMAR]:
            return certain
        total = max(1.0, sum(child[0] for child in merged.values()))
        return sorted(
            ((share / total, token, sources, on) for share, token, sources, on in merged.values()),
            key=lambda child: child[0],
            reverse=True,
        )

    def finished(self, threshold: float, promise: Sequence[float]) -> DraftTree:
        """With the chains below the masks' depth, and with the mask groups that are worth it."""
        while self.open:
            node, (depth, chains) = next(iter(self.open.items()))
            if len(chains) == 1:
                del self.open[node]
                self._follow(node, depth, chains[0], threshold)
                continue
            for rank, (share, token, sources, going_on) in enumerate(
                self.children(node, depth, ())
            ):
                reached = self.reached[node] * share
                if reached < threshold or not self.has_room(sources):
                    break
                self.add(node, rank, token, reached, sources, going_on, depth + 1)
        sizes = mask_groups(self.parents, self.reached, threshold, promise, self.cut)
        topology = TreeTopology(tuple(self.parents), tuple(self.ranks), sizes)
        return DraftTree(tuple(self.tokens), topology, tuple(self.sources), tuple(self.reached))

    def _follow(self, node: int, depth: int, chain: Chain, threshold: float) -> None:
        """Add the rest of the only chain through a node."""
        reached = self.reached[node]
        room = self.most - len(self.tokens)
        for token, share in zip(
            chain.tokens[depth : depth + room], chain.shares[depth : depth + room], strict=True
        ):
            if reached * share < threshold:
                self.cut[node] = share
                break
            reached *= share
            node = self.add(node, 0, token, reached, chain.source, [], depth)


def mask_groups(
    parents: Sequence[int],
    reached: Sequence[float],
    threshold: float,
    promise: Sequence[float],
    cut: Mapping[int, float] | None = None,
) -> tuple[int, ...]:
    """Masks behind every node, given how probable it is that the node is accepted.

    What a mask makes possible costs a row of its own a step later: that is taken off.
    cut: nodes where a chain was cut; in the step after it goes on there, as likely as is said.
    """
    last = list(reached)
    for node, parent in enumerate(parents):
        if parent >= 0:
            last[parent] -= reached[node]
    for node, share in (cut or {}).items():
        last[node] *= 1.0 - share
    worth = [
        (share * (chance - threshold), node)
        for node, share in enumerate(last)
        if share >= threshold
        for chance in promise
        if share * (chance - threshold) >= threshold
    ]
    sizes = [0] * len(parents)
    for _, node in sorted(worth, reverse=True)[: MAX_ROWS - len(parents)]:
        sizes[node] += 1
    return tuple(sizes)
