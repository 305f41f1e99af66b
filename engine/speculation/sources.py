"""Who drafts: names as the API and the metrics know them, bits as tree nodes carry them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

BITA, NGRAM, PREDICTION, GRAMMAR = 1, 2, 4, 8
BITS = {"bita": BITA, "ngram": NGRAM, "prediction": PREDICTION, "grammar": GRAMMAR}
NAMES = tuple(BITS)
GUESSING = (BITA, NGRAM)
"""Those that were told nothing of the answer."""


def names(bits: int) -> list[str]:
    """Who proposed a node, by its bits."""
    return [name for name, bit in BITS.items() if bits & bit]


def count(nodes: Iterable[int]) -> dict[str, int]:
    """Nodes by source; one that several proposed counts for each of them.

    nodes: the bits of each; 0, as the root's, counts for nobody.
    """
    totals = Counter(nodes)
    return {name: sum(n for bits, n in totals.items() if bits & bit) for name, bit in BITS.items()}
