"""Which tree each adapter's sequences verify in this step.

`Fixed` always uses one named topology. `Ladder` holds trees fitted to the adapter's measured hit
rates for rising numbers of rows and picks, for the number of sequences decoding now, the one
that emits the most tokens a second under the measured step cost. The lowest rung is plain
decoding: on a busy server speculation switches itself off.
"""

from __future__ import annotations

from typing import Protocol

from engine.speculation.cost import StepCostModel
from engine.speculation.fit import Hits, expected_length, fit_tree
from engine.speculation.tree import TreeTopology

RUNGS = (4, 6, 8, 10, 12, 16, 20, 24, 32, 48)
PLAIN = TreeTopology.root(0)


class Planner(Protocol):
    """Chooses a topology."""

    @property
    def largest(self) -> TreeTopology:
        """The topology of most rows that can be chosen."""
        ...

    def plan(self, num_decoding: int) -> TreeTopology:
        """The topology for each of `num_decoding` sequences in one step."""
        ...


class Fixed:
    """Always the same topology."""

    def __init__(self, topology: TreeTopology) -> None:
        self.largest = topology

    def plan(self, num_decoding: int) -> TreeTopology:
        """As `Planner.plan`."""
        return self.largest


class Ladder:
    """The rung of most expected tokens a second."""

    def __init__(self, hits: Hits, cost: StepCostModel) -> None:
        self.cost = cost
        trees = [PLAIN, *(fit_tree(hits, rows) for rows in RUNGS)]
        self.rungs = [(tree, expected_length(tree, hits)) for tree in trees]
        self.largest = max(trees, key=lambda tree: tree.num_rows)
        self._chosen: dict[int, TreeTopology] = {}

    def plan(self, num_decoding: int) -> TreeTopology:
        """As `Planner.plan`."""
        if num_decoding not in self._chosen:
            self._chosen[num_decoding] = max(
                self.rungs, key=lambda rung: rung[1] / self.cost(num_decoding * rung[0].num_rows)
            )[0]
        return self._chosen[num_decoding]


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
