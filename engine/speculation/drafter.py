"""Drafts beside BiTA's: texts that are known already, and how far each may be trusted.

A `Finder` says where the output may go on in a text it knows. A `Drafter` turns that into chains
with a probability a token. It measures them on every step against what the model said, whether or
not they were drafted: a source that is of no use in this request soon proposes nothing that is
worth a row, at no cost but its own look-up, and is heard again when it is right again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.speculation.sources import GUESSING

FLOOR = 0.01
"""A token less likely than this is not proposed."""

PATIENCE, SELDOM = 16, 4
"""Steps in a row of which a guess said nothing right, after which it is looked for in every fourth
alone: of 16 sequences that decode plainly, the look-ups took a twentieth of a step."""

PRIOR_WEIGHT = 3.0
MEMORY = 0.97


@dataclass(frozen=True, slots=True)
class Match:
    """tokens: how the output may go on. agreed: tokens before them that agree already."""

    tokens: list[int]
    agreed: int


class Finder(Protocol):
    """A text that the output may be following."""

    def extend(self, tokens: Sequence[int]) -> None:
        """Take the tokens that were emitted."""
        ...

    def matches(self, limit: int) -> list[Match]:
        """Where the output may go on, each as at most `limit` tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Chain:
    """Tokens that may follow the root one after the other.

    source: its bit in `sources`. shares: probability of each token, given those before it.
    """

    source: int
    tokens: Sequence[int]
    shares: Sequence[float]


class Chances:
    """How often a source is right, by how many tokens agreed before.

    Lengths are counted by powers of two (0, 1, 2 to 3, 4 to 7, 8 to 15, more): the longer two
    texts have agreed, the likelier they go on to. Each estimate begins at its prior and forgets:
    what lies a hundred tokens back says little of what comes next.

    others: of requests like this one, whose estimates it begins at instead, and adds to.
    """

    def __init__(self, priors: Sequence[float], others: Chances | None = None) -> None:
        start = priors if others is None else others()
        self._hits = [PRIOR_WEIGHT * chance for chance in start]
        self._tries = [PRIOR_WEIGHT] * len(start)
        self._others = others

    def __call__(self) -> list[float]:
        """Probability of the next token, by `level`."""
        return [hits / tries for hits, tries in zip(self._hits, self._tries, strict=True)]

    def level(self, agreed: int) -> int:
        """Where an agreement of so many tokens counts."""
        return min(agreed.bit_length(), len(self._tries) - 1)

    def add(self, agreed: int, right: bool) -> None:
        """Count a token that came after an agreement of `agreed` tokens."""
        level = self.level(agreed)
        self._hits[level] = self._hits[level] * MEMORY + right
        self._tries[level] = self._tries[level] * MEMORY + 1.0
        if self._others is not None:
            self._others.add(agreed, right)


class Drafter:
    """One source of one request. priors, others: as of `Chances`."""

    def __init__(
        self,
        source: int,
        finder: Finder,
        priors: Sequence[float],
        others: Chances | None = None,
    ) -> None:
        self.source, self._finder, self._chances = source, finder, Chances(priors, others)
        self._proposed: list[Match] = []
        self._in_vain = 0

    def propose(self, limit: int) -> list[Chain]:
        """Chains of at most `limit` tokens."""
        if self._in_vain > PATIENCE and self._in_vain % SELDOM and self.source in GUESSING:
            return []
        self._proposed = self._finder.matches(limit)
        if not self._proposed:
            return []
        chances, chains = self._chances(), []
        most = len(chances) - 1
        for match in self._proposed:
            shares: list[float] = []
            reached = 1.0
            for agreed in range(match.agreed, match.agreed + len(match.tokens)):
                # As `Chances.level`, which would be most of the time spent here.
                share = chances[min(agreed.bit_length(), most)]
                reached *= share
                if reached < FLOOR:
                    break
                shares.append(share)
            chains.append(Chain(self.source, match.tokens[: len(shares)], shares))
        return chains

    def observe(self, tokens: Sequence[int]) -> None:
        """Take the tokens that were emitted after the last proposal, and learn from them."""
        right = any(match.tokens[:1] == tokens[:1] for match in self._proposed)
        self._in_vain = 0 if right else self._in_vain + 1
        for match in self._proposed:
            for place, (said, came) in enumerate(zip(match.tokens, tokens, strict=False)):
                self._chances.add(match.agreed + place, said == came)
                if said != came:
                    break
        self._proposed = []
        self._finder.extend(tokens)
