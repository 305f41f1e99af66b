"""How often an adapter's drafts are right, by depth and rank."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from adapters.errors import AdapterFormatError

# Hit rates published for Vicuna-7B by PPD (arXiv 2405.18628), which drafts by the same idea: its
# tree file `dynamic_sparse_trees_3_vicuna_7b.py`, path probabilities divided by their parents'.
# Ranks it does not give are taken to miss.
PUBLISHED = (
    (0.483, 0.143, 0.074, 0.045, 0.031),
    (0.263, 0.146, 0.081, 0.058, 0.043),
    (0.164, 0.118, 0.0, 0.0, 0.0),
)


@dataclass(frozen=True, slots=True)
class HitProfile:
    """Hit rates of greedy answers, measured unless all counts are 0.

    rates[d][r]: how often the token at depth d + 1 was the rank-r candidate of mask d, counted
        where the tokens of all smaller depths were among their masks' candidates.
    counts[d]: how many places that is.
    temperatures[d]: what divides mask d's logits, so that its probabilities are right as often as
        they say (Guo et al. 2017, arXiv 1706.04599); 1 where nothing was measured.
    """

    rates: list[list[float]]
    counts: list[int]
    temperatures: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.rates or len(self.rates) != len(self.counts):
            raise AdapterFormatError("a hit profile needs one row of rates and one count a depth")
        for row in self.rates:
            fine = all(math.isfinite(r) and 0.0 <= r <= 1.0 for r in row)
            if not row or not fine or sum(row) > 1.0 + 1e-6:
                raise AdapterFormatError("hit rates must be probabilities that sum to at most 1")
        if not self.temperatures:
            object.__setattr__(self, "temperatures", [1.0] * len(self.rates))
        fine = all(math.isfinite(t) and t > 0.0 for t in self.temperatures)
        if not fine or len(self.temperatures) != len(self.rates):
            raise AdapterFormatError("temperatures must be positive, one a depth")

    @property
    def measured(self) -> bool:
        """Whether the rates were counted, rather than assumed."""
        return any(self.counts)


def prior(masks: int) -> HitProfile:
    """What to assume of an adapter nobody has measured; depths beyond the third take its rates."""
    rates = [list(PUBLISHED[min(depth, len(PUBLISHED) - 1)]) for depth in range(masks)]
    return HitProfile(rates, [0] * masks)
