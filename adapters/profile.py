"""How often an adapter's drafts are right, by depth and rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adapters.errors import AdapterFormatError


@dataclass(frozen=True, slots=True)
class HitProfile:
    """Measured hit rates of greedy answers.

    rates[d][r]: how often the token at depth d + 1 was the rank-r candidate of mask d, counted
        where the tokens of all smaller depths were among their masks' candidates.
    counts[d]: how many places that is.
    """

    rates: list[list[float]]
    counts: list[int]

    def __post_init__(self) -> None:
        if not self.rates or len(self.rates) != len(self.counts):
            raise AdapterFormatError("a hit profile needs one row of rates and one count a depth")
        for row in self.rates:
            fine = all(math.isfinite(r) and 0.0 <= r <= 1.0 for r in row)
            if not row or not fine or sum(row) > 1.0 + 1e-6:
                raise AdapterFormatError("hit rates must be probabilities that sum to at most 1")

    def merge(self, other: HitProfile) -> HitProfile:
        """Both profiles as one, weighted by their counts."""
        rates = []
        for mine, theirs, m, n in zip(
            self.rates, other.rates, self.counts, other.counts, strict=True
        ):
            total = max(1, m + n)
            rates.append([(a * m + b * n) / total for a, b in zip(mine, theirs, strict=True)])
        counts = [m + n for m, n in zip(self.counts, other.counts, strict=True)]
        return HitProfile(rates, counts)
