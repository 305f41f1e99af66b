"""How far one request's drafts keep what their probabilities promise.

An adapter's probabilities are calibrated on greedy answers to prompts like those it was tuned on.
A sampled answer, or a text of another kind, follows them less often, and rows bought at their word
would not pay. Each request so scales them by what it has seen itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.speculation.sources import BITA
from engine.speculation.tree import DraftTree

WEIGHT = 8.0
"""Promises that count as judged by the prior before the first was made."""

MEMORY = 0.98
"""Of the past in every step; who drafts nothing any more is so tried again."""


class Trust:
    """Promises kept over promises made, never more than 1.

    prior: what is known of others like it, 1 where nothing is.
    """

    def __init__(self, prior: Trust | None = None) -> None:
        self._prior = prior
        self._promised = self._kept = 0.0

    def __call__(self) -> float:
        """Factor on the probability that a draft is right where all before it were."""
        prior = self._prior() if self._prior is not None else 1.0
        return min(1.0, (prior * WEIGHT + self._kept) / (WEIGHT + self._promised))

    def observe(self, tree: DraftTree, path: Sequence[int]) -> None:
        """Learn from a grown tree that a request verified, and from its accepted path.

        At every node that was reached, its children promise by their probabilities that one of
        them comes next.
        """
        promised = kept = 0.0
        for node, following in zip((0, *path), (*path, None), strict=True):
            drafted = [c for c in tree.topology.children[node] if tree.sources[c] & BITA]
            promised += sum(tree.reached[child] for child in drafted) / tree.reached[node]
            kept += following in drafted
        self._learn(promised / self(), kept)

    def _learn(self, promised: float, kept: float) -> None:
        """The prior learns too: what it takes for given is what its requests saw."""
        self._promised = self._promised * MEMORY + promised
        self._kept = self._kept * MEMORY + kept
        if self._prior is not None:
            self._prior._learn(promised, kept)
