"""Which tree each sequence verifies in the next step, and which nodes get masks.

`Fixed` fills one named topology. `Adaptive` grows a tree a sequence, of all rows that are worth a
threshold (`growth`), the same for all sequences of a step. The threshold is the one that, on the
adapter's measured hit rates and the machine's measured step cost, emits the most tokens a second:
a busy server so leaves out the rows that cost more than they bring, and in the end all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.speculation.bita import Parent
from engine.speculation.cost import StepCostModel
from engine.speculation.fit import Hits, expected_length, fit_tree
from engine.speculation.growth import Ranker, fill, grow, mask_groups
from engine.speculation.tree import DraftTree, TreeTopology

PLAIN = TreeTopology.root(0)
THRESHOLDS = (0.6, 0.45, 0.35, 0.27, 0.2, 0.15, 0.11, 0.08, 0.06, 0.045, 0.03, 0.02)


class Planner(Protocol):
    """Chooses trees."""

    def first(self, num_decoding: int) -> TreeTopology:
        """What a sequence runs that nothing is drafted for, when so many decode."""
        ...

    def draft(self, ranker: Ranker, num_decoding: int) -> list[DraftTree]:
        """The next tree for every mask group of `ranker`."""
        ...


class Fixed:
    """Always the same topology, as deep as a group drafts."""

    def __init__(self, topology: TreeTopology) -> None:
        self.topology = topology

    def first(self, num_decoding: int) -> TreeTopology:
        """As `Planner.first`."""
        return TreeTopology.root(self.topology.masks[0])

    def draft(self, ranker: Ranker, num_decoding: int) -> list[DraftTree]:
        """As `Planner.draft`."""
        return fill(self.topology, ranker)


class Adaptive:
    """Rows by their worth."""

    def __init__(self, hits: Hits, cost: StepCostModel) -> None:
        self.cost = cost
        self.promise = _promise(hits)
        # (threshold, rows, expected length) of the average tree; plain decoding is worth any.
        self.options: list[tuple[float, int, float]] = [(1.0, 1, 1.0)]
        for threshold in THRESHOLDS:
            average = grow(_Average(hits), threshold, self.promise)[0].topology
            self.options.append((threshold, average.num_rows, expected_length(average, hits)))
        self._chosen: dict[int, float] = {}

    def threshold(self, num_decoding: int) -> float:
        """Tokens a row must be expected to bring; 1 stands for plain decoding."""
        if num_decoding not in self._chosen:
            self._chosen[num_decoding] = max(
                self.options, key=lambda option: option[2] / self.cost(num_decoding * option[1])
            )[0]
        return self._chosen[num_decoding]

    def first(self, num_decoding: int) -> TreeTopology:
        """As `Planner.first`."""
        return TreeTopology.root(
            mask_groups([-1], [1.0], self.threshold(num_decoding), self.promise)[0]
        )

    def draft(self, ranker: Ranker, num_decoding: int) -> list[DraftTree]:
        """As `Planner.draft`."""
        threshold = self.threshold(num_decoding)
        if threshold >= 1.0:
            return [PLAIN.fill(root) for root in ranker.roots]
        return grow(ranker, threshold, self.promise)


class _Average:
    """Stands for a sequence on which every draft is as often right as measured."""

    def __init__(self, hits: Hits) -> None:
        self.hits, self.depth = hits, 0
        self.roots, self.sizes = [0], [len(hits)]

    def rank(
        self, parents: Sequence[Parent], width: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """As `Ranker.rank`."""
        shares = list(self.hits[self.depth][:width])
        self.depth += 1
        return [list(range(len(shares)))] * len(parents), [shares] * len(parents)


def _promise(hits: Hits) -> list[float]:
    """Probability that the likelier two drafts of every depth so far hold the true token."""
    promise, chance = [], 1.0
    for rates in hits:
        chance *= min(1.0, sum(rates[:2]))
        promise.append(chance)
    return promise


def named(tree: str, hits: Hits) -> TreeTopology:
    """The topology a configuration names: "comb", "chain" or "fitted:ROWS".

    Raises ValueError for any other name.
    """
    masks = len(hits)
    if tree == "comb":
        return TreeTopology.comb(max(5, masks), masks)
    if tree == "chain":
        return TreeTopology.chain(masks)
    kind, _, rows = tree.partition(":")
    if kind == "fitted" and rows.isdigit() and int(rows) > 0:
        return fit_tree(hits, int(rows))
    raise ValueError(f"tree must be auto, comb, chain or fitted:ROWS, not {tree!r}")
