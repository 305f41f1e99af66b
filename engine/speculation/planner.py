"""Which tree each sequence verifies in the next step, and which nodes get masks.

`Fixed` fills one named topology. `Adaptive` grows a tree a sequence, of all rows that are worth a
threshold (`growth`), the same for all sequences of a step. The threshold is the one that, on the
adapter's measured hit rates and the machine's measured step cost, emits the most tokens a second:
a busy server so leaves out the rows that cost more than they bring, and in the end all of them.

Chains of other sources come without masks, so that their rows pay or do not in the step itself:
those are taken that raise its rate of tokens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import Protocol

from engine.speculation.bita import Parent
from engine.speculation.cost import Load, StepCostModel
from engine.speculation.drafter import Chain
from engine.speculation.fit import Hits, fit_tree, path_probabilities, steady_state
from engine.speculation.growth import Ranker, Unranked, fill, grow, mask_groups, trusted
from engine.speculation.tree import DraftTree, TreeTopology

PLAIN = TreeTopology.root(0)
MAX_PLANNED_ROWS = 4096
TRUST_LEVELS = 10
CONTEXT_STEP = 256
"""Committed tokens that contexts are rounded to: what is chosen changes slowly with them."""
MARGIN = 1.1
"""What drafts must promise over plain decoding: a curve measured for one sequence is no surer."""

CHAIN_MARGIN = 1.05
"""The same of chains, whose rows are few."""

THRESHOLDS = (0.6, 0.45, 0.35, 0.27, 0.2, 0.15, 0.11, 0.08, 0.06, 0.045, 0.03, 0.02)


class Planner(Protocol):
    """Chooses trees. level: seconds of ranking one of their levels, 0 where nobody asks."""

    level: float

    def first(self, load: Load, trust: float = 1.0) -> TreeTopology:
        """What a sequence runs that nothing is drafted for. trust: in what its masks will say."""
        ...

    def draft(
        self, ranker: Ranker, chains: Sequence[Sequence[Chain]], load: Load
    ) -> list[DraftTree]:
        """The next tree for every mask group of `ranker`, from it and from each one's chains."""
        ...


class Fixed:
    """Always the same topology, as deep as a group drafts; it has no room for chains."""

    level = 0.0

    def __init__(self, topology: TreeTopology) -> None:
        self.topology = topology

    def first(self, load: Load, trust: float = 1.0) -> TreeTopology:
        """As `Planner.first`."""
        return TreeTopology.root(self.topology.masks[0])

    def draft(
        self, ranker: Ranker, chains: Sequence[Sequence[Chain]], load: Load
    ) -> list[DraftTree]:
        """As `Planner.draft`."""
        return fill(self.topology, ranker)


class Adaptive:
    """Rows by their worth. Without an adapter, `hits` is empty."""

    def __init__(self, hits: Hits, cost: StepCostModel) -> None:
        self.hits, self.cost, self.promise = hits, cost, _promise(hits)
        self.level = cost.level
        self._seconds = [cost.of_rows(rows) for rows in range(MAX_PLANNED_ROWS)]
        # All of them now: a step that met a new level of trust would wait for it.
        self._outlooks = [
            _outlooks(hits, level / TRUST_LEVELS) for level in range(TRUST_LEVELS + 1)
        ]
        self._chosen: dict[tuple[float, ...], tuple[Outlook, float]] = {}

    def outlook(self, load: Load, trust: float = 1.0) -> Outlook:
        """The best of the outlooks under a load, with such trust in drafts.

        Plain decoding, where drafts promise less more than the promise may be wrong by.
        """
        return self._choice(load, trust)[0]

    def _choice(self, load: Load, trust: float) -> tuple[Outlook, float]:
        """The best outlook, and the tokens a second that it promises every sequence."""
        level, place = round(trust * TRUST_LEVELS), round(load.context / CONTEXT_STEP)
        # Of numbers: asked for every sequence of a step, where a dataclass takes long to hash.
        key = load.sequences, place, load.overhead, load.drafting, level
        if key not in self._chosen:
            rounded = replace(load, context=place * CONTEXT_STEP)

            def rate(outlook: Outlook) -> float:
                return outlook.tokens_per_second(rounded, self.cost)

            plain, *drafting = self._outlooks[level]
            best = max(drafting, key=rate)
            chosen = best if rate(best) > rate(plain) * MARGIN else plain
            self._chosen[key] = chosen, rate(chosen)
        return self._chosen[key]

    def threshold(self, load: Load) -> float:
        """Tokens a row must be expected to bring; 1 stands for plain decoding."""
        return self.outlook(load).threshold

    def first(self, load: Load, trust: float = 1.0) -> TreeTopology:
        """As `Planner.first`."""
        threshold = self.outlook(load, trust).threshold
        if threshold >= 1.0:
            return PLAIN
        return _undrafted(threshold, trusted(self.promise, trust))

    def draft(
        self, ranker: Ranker, chains: Sequence[Sequence[Chain]], load: Load
    ) -> list[DraftTree]:
        """As `Planner.draft`."""
        outlook, rate = self._choice(load, sum(ranker.trusts) / len(ranker.trusts))
        threshold, worth = outlook.threshold, self.chain_threshold(chains, load)
        if worth == math.inf:
            chains = ()
        if threshold >= 1.0:
            if not chains:
                return [PLAIN.fill(root) for root in ranker.roots]
            return grow(Unranked(ranker.roots, ranker.trusts), worth, (), chains)
        if chains:
            # The more a step does without a row, the more the row must bring: what either source
            # does alone is the least that both will do.
            threshold = max(threshold, worth)
        level = self.level * load.sequences * rate
        return grow(ranker, threshold, self.promise, chains, level)

    def chain_threshold(self, chains: Sequence[Sequence[Chain]], load: Load) -> float:
        """Tokens the least of the rows brings that together raise a step's rate most.

        Infinity where they do not raise it by more than it may be wrong by.

        Rows of each sequence's best chain are taken in order of worth, on top of one row a
        sequence. Whatever the cost curve's form, every number of them is tried.
        """
        best_chains = [
            max((list(itertools.accumulate(chain.shares, mul)) for chain in own), key=sum)
            for own in chains
            if own
        ]
        first = min(load.sequences, MAX_PLANNED_ROWS - 1)
        worth = sorted(itertools.chain.from_iterable(best_chains), reverse=True)
        worth = worth[: MAX_PLANNED_ROWS - 1 - first]
        tokens, least = float(load.sequences), math.inf
        # Looked up and added: there may be a thousand rows, in every step.
        fixed, a_row = self.cost.further(load)
        best = tokens / (self._seconds[first] + fixed + a_row * first) * CHAIN_MARGIN
        for rows, value in enumerate(worth, first + 1):
            tokens += value
            rate = tokens / (self._seconds[rows] + fixed + a_row * rows)
            if rate > best:
                best, least = rate, value
        return least


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a threshold leads to, on the average tree.

    shares, rows, tokens, levels: of steps whose mask group had 0, 1, ... masks. levels: ranked for
        the next tree.
    """

    threshold: float
    shares: list[float]
    rows: list[int]
    tokens: list[float]
    levels: list[int]

    @classmethod
    def of(cls, hits: Hits, threshold: float, promise: Sequence[float]) -> Outlook:
        """The outlook of `threshold` where drafts are right as often as `hits` says."""
        trees = [_undrafted(threshold, promise)]
        for size in range(1, len(hits) + 1):
            trees.append(grow(_Average(hits, size), threshold, promise)[0].topology)
        return cls(
            threshold,
            steady_state(trees, hits),
            [tree.num_rows for tree in trees],
            [sum(path_probabilities(tree, hits)) for tree in trees],
            # The level below the deepest node is ranked too, and found not worth a row.
            [min(max(tree.depths) + 1, size) for size, tree in enumerate(trees)],
        )

    @property
    def mean_rows(self) -> float:
        """Rows of a sequence in a step."""
        return sum(s * r for s, r in zip(self.shares, self.rows, strict=True))

    @property
    def mean_tokens(self) -> float:
        """Tokens of a sequence in a step, the bonus token included."""
        return sum(s * t for s, t in zip(self.shares, self.tokens, strict=True))

    def tokens_per_second(self, load: Load, cost: StepCostModel) -> float:
        """Of every one of the sequences."""
        seconds = sum(
            share * (cost(load.sequences * rows, load) + levels * cost.level)
            for share, rows, levels in zip(self.shares, self.rows, self.levels, strict=True)
        )
        if self.threshold < 1.0:
            seconds += load.drafting
        return self.mean_tokens / seconds


def _outlooks(hits: Hits, trust: float) -> list[Outlook]:
    """Of plain decoding and of every threshold, where drafts are right `trust` times as often."""
    hits = [[rate * trust for rate in rates] for rates in hits]
    promise = _promise(hits)
    return [Outlook.of(hits, threshold, promise) for threshold in (1.0, *THRESHOLDS)]


def _undrafted(threshold: float, promise: Sequence[float]) -> TreeTopology:
    return TreeTopology.root(mask_groups([-1], [1.0], threshold, promise)[0])


class _Average:
    """Stands for a sequence on which every draft is as often right as measured."""

    def __init__(self, hits: Hits, size: int) -> None:
        self.hits, self.levels = hits, 0
        self.roots, self.sizes, self.trusts = [0], [size], [1.0]

    def rank(
        self, parents: Sequence[Parent], width: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """As `Ranker.rank`."""
        shares = list(self.hits[self.levels][:width])
        self.levels += 1
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
