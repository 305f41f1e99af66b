"""The request's own past: where its last tokens stood before, and what followed them there.

An index of short n-grams leads to earlier places, the longest agreement among the latest of them
is followed (prompt lookup decoding, Saxena 2023; by longest suffix as in SuffixDecoding, arXiv
2411.04975). A token costs the same to index however long the context is.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.speculation.drafter import Match

PRIORS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Of `drafter.Chances`; the first two are never asked for."""

LENGTH = 2
PLACES = 8
LONGEST = 24
CATCH_UP = 512
_BITS = 21
_KEY = (1 << _BITS * LENGTH) - 1


class NgramIndex:
    """Every place of every n-gram of a growing text, the latest first."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        self._latest: dict[int, int] = {}
        self._previous: list[int] = []
        self._key = 0

    def extend(self, tokens: Sequence[int]) -> None:
        """As `Finder.extend`."""
        self._tokens += tokens

    def matches(self, limit: int) -> list[Match]:
        """As `Finder.matches`: the longest agreement, of the latest places."""
        self._catch_up()
        tokens, size = self._tokens, len(self._tokens)
        if len(self._previous) < size - 1 or size <= LENGTH:
            return []
        place = self._latest.get((self._key << _BITS | tokens[-1]) & _KEY, -1)
        best, agreed = -1, LENGTH - 1
        for _ in range(PLACES):
            if place < 0 or agreed == LONGEST:
                break
            length = 0
            while (
                length < min(LONGEST, place + 1) and tokens[place - length] == tokens[-1 - length]
            ):
                length += 1
            if length > agreed:
                best, agreed = place, length
            place = self._previous[place]
        if best < 0:
            return []
        following = tokens[best + 1 : best + 1 + limit]
        if best + 1 + limit > size:
            # It runs into itself: a text that repeats goes on repeating.
            following = (following * (limit // len(following) + 1))[:limit]
        return [Match(following, agreed)]

    def _catch_up(self) -> None:
        """Index what has a token after it; of a long prompt a part in every step."""
        first = len(self._previous)
        key, latest = self._key, self._latest
        for place, token in enumerate(
            self._tokens[first : min(first + CATCH_UP, len(self._tokens) - 1)], first
        ):
            key = (key << _BITS | token) & _KEY
            self._previous.append(latest.get(key, -1))
            latest[key] = place
        self._key = key
