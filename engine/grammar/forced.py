"""What a grammar leaves no choice about, as drafts: keys of an object, what closes a string."""

from __future__ import annotations

from collections.abc import Sequence

from engine.grammar.constraint import Constraint
from engine.speculation.drafter import Match

PRIORS = (1.0,)
"""Of `drafter.Chances`: nothing else can come."""


class ForcedTokens:
    """The tokens that must come next, at least while their grammar stands where it does."""

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint

    def extend(self, tokens: Sequence[int]) -> None:
        """Nothing to do: the constraint is advanced by the engine."""

    def matches(self, limit: int) -> list[Match]:
        """As `Finder.matches`."""
        forced = self._constraint.forced()[:limit]
        return [Match(forced, 0)] if forced else []
