"""Draft trees: their shape before a step (`TreeTopology`) and filled with tokens (`DraftTree`).

Node 0 is the root: the last emitted token, whose KV is not stored yet. A node at depth d > 0
carries what mask d - 1 gives behind its parent, chosen by rank, or what another source says comes
there; each node may have a mask group behind it, and the group of the last accepted node drafts
the next step (BiTA sec. 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.speculation.sources import BITA

MAX_ROWS = 64
"""Of one sequence in a step, root and masks included: what a row sees is a 64-bit word."""


@dataclass(frozen=True)
class TreeTopology:
    """The shape of a draft tree. Entry i of each list belongs to node i; node 0 is the root.

    parents: -1 for the root; a parent comes before its children.
    ranks: which of its parent's likeliest children a node is, 0 the first; 0 for the root.
    masks: size of the mask group behind the node.
    """

    parents: tuple[int, ...]
    ranks: tuple[int, ...]
    masks: tuple[int, ...]

    @classmethod
    def comb(cls, width: int, masks: int) -> TreeTopology:
        """The paper's tree: depth d keeps `width - d + 1` candidates, only the best is extended.

        Every node has its own full mask group; comb(5, 3) is 13 nodes and 39 masks.
        """
        parents, ranks, best = [-1], [0], 0
        for depth in range(1, masks + 1):
            first = len(parents)
            for rank in range(width - depth + 1):
                parents.append(best)
                ranks.append(rank)
            best = first
        return cls(tuple(parents), tuple(ranks), (masks,) * len(parents))

    @classmethod
    def chain(cls, masks: int) -> TreeTopology:
        """One candidate a depth, each with a full mask group."""
        nodes = masks + 1
        return cls(tuple(range(-1, masks)), (0,) * nodes, (masks,) * nodes)

    @classmethod
    def root(cls, masks: int) -> TreeTopology:
        """No drafts to verify: the root and the masks that draft the next step."""
        return cls((-1,), (0,), (masks,))

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Depth of each node; the root's is 0."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(depths[parent] + 1 if parent >= 0 else 0)
        return tuple(depths)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Children of each node."""
        children: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                children[parent].append(node)
        return tuple(map(tuple, children))

    @property
    def num_rows(self) -> int:
        """Rows the tree adds to a forward, the root included."""
        return len(self.parents) + sum(self.masks)

    @cached_property
    def num_ranks(self) -> int:
        """Children of one node that the tree can use."""
        return max(self.ranks) + 1

    def pruned(self, depth: int) -> TreeTopology:
        """The tree without nodes deeper than `depth`."""
        if depth >= max(self.depths):
            return self
        return self.keeping([i for i, d in enumerate(self.depths) if d <= depth])

    def keeping(self, kept: Sequence[int]) -> TreeTopology:
        """The tree of these nodes alone, in order; the parent of each is among them."""
        new = {old: i for i, old in enumerate(kept)}
        return TreeTopology(
            tuple(new.get(self.parents[i], -1) for i in kept),
            tuple(self.ranks[i] for i in kept),
            tuple(self.masks[i] for i in kept),
        )

    def fill(self, root: int, tokens: Sequence[Sequence[int]] = ()) -> DraftTree:
        """The tree with `tokens[d][r]` as the rank-r child of every node at depth d.

        Depths that nothing is given for are left out.
        """
        if len(self.parents) == 1:  # what plain decoding asks for, for every sequence
            return DraftTree((root,), self, (0,))
        topology = self.pruned(len(tokens))
        token_ids = [root]
        for depth, rank in zip(topology.depths[1:], topology.ranks[1:], strict=True):
            token_ids.append(tokens[depth - 1][rank])
        return DraftTree(tuple(token_ids), topology, topology.bita)

    def fill_with(self, token: int) -> DraftTree:
        """The whole tree with one token everywhere: a load to time, not drafts to verify."""
        return DraftTree((token,) * len(self.parents), self, self.bita)

    @cached_property
    def bita(self) -> tuple[int, ...]:
        """Sources of the nodes where masks drafted all of them."""
        return (0, *[BITA] * (len(self.parents) - 1))


@dataclass(frozen=True)
class DraftTree:
    """A topology, and by node its token and the bits of who proposed it (0 for the root).

    reached: probability that each node is accepted, as the drafters have it; empty where the
        shape was given.
    """

    token_ids: tuple[int, ...]
    topology: TreeTopology
    sources: tuple[int, ...]
    reached: tuple[float, ...] = ()

    @property
    def num_drafts(self) -> int:
        """Draft tokens to verify."""
        return len(self.token_ids) - 1

    def keeping(self, kept: Sequence[int]) -> DraftTree:
        """The tree of these nodes alone, in order; the parent of each is among them."""
        return DraftTree(
            tuple(self.token_ids[i] for i in kept),
            self.topology.keeping(kept),
            tuple(self.sources[i] for i in kept),
            tuple(self.reached[i] for i in kept) if self.reached else (),
        )

    def path(self, node: int) -> list[int]:
        """Nodes from below the root down to `node`, which is last; empty for the root."""
        path = []
        while node > 0:
            path.append(node)
            node = self.topology.parents[node]
        return path[::-1]

    def child(self, node: int, token_id: int) -> int | None:
        """The child of `node` that carries `token_id`."""
        for child in self.topology.children[node]:
            if self.token_ids[child] == token_id:
                return child
        return None

    def check_integrity(self) -> None:
        """Parents come first and siblings differ, else verification would be ambiguous."""
        seen = set()
        for i, (parent, token) in enumerate(
            zip(self.topology.parents, self.token_ids, strict=True)
        ):
            assert parent < i, f"node {i} comes before its parent {parent}"
            assert (parent, token) not in seen, f"node {i} repeats a sibling's token {token}"
            seen.add((parent, token))
