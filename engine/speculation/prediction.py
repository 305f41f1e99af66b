"""The client's `prediction`: how far the output follows it, and where it goes on in it.

Where the two part, the output is looked for again in the prediction, by its last tokens. Until
enough of them agree, the likeliest guesses are that as many tokens were replaced as have come
since, or that they were put in between.

Torch-free: the server counts the prediction's tokens with it too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from engine.speculation.drafter import Match

PRIORS = (0.4, 0.6, 0.75, 0.9, 0.95, 0.97)
"""Of `drafter.Chances`."""

START = 4
"""The beginnings of both texts count as an agreement of so many tokens."""

CERTAIN = 2
AHEAD, BEHIND = 1024, 128
PLACES = 16
LONGEST = 8
GUESSES = 16
"""Tokens after which it is not guessed any more where an output goes on that agrees nowhere."""


class Alignment:
    """A predicted text beside the growing output.

    accepted: predicted tokens that the output has, each counted once, in runs long enough not to
    be chance.
    """

    def __init__(self, predicted: Sequence[int]) -> None:
        self.accepted = 0
        self._predicted = list(predicted)
        self._seen = bytearray(len(self._predicted))
        # Where the output goes on, how many tokens before that agree, and how many would have to.
        self._at, self._agreed, self._needed = 0, START, CERTAIN
        # Where it last went on for certain, and how many tokens were emitted since.
        self._certain, self._since = 0, 0
        self._recent: deque[int] = deque(maxlen=LONGEST)

    @property
    def rejected(self) -> int:
        """Predicted tokens that the output does not have, so far."""
        return len(self._predicted) - self.accepted

    def extend(self, tokens: Sequence[int]) -> None:
        """As `Finder.extend`."""
        for token in tokens:
            self._recent.appendleft(token)
            self._since += 1
            if self._at < len(self._predicted) and self._predicted[self._at] == token:
                self._at, self._agreed = self._at + 1, self._agreed + 1
            else:
                self._at, self._agreed, self._needed = self._found(token)
            if self._agreed >= self._needed:
                first = max(0, self._at - min(self._agreed, self._since))
                run = self._at - first
                self.accepted += run - sum(self._seen[first : self._at])
                self._seen[first : self._at] = b"\1" * run
                self._certain, self._since, self._needed = self._at, 0, CERTAIN

    def matches(self, limit: int) -> list[Match]:
        """As `Finder.matches`: the place found, and guesses while it is not certain."""
        places = {}
        if self._agreed > 0:
            places[self._at] = max(0, self._agreed - (self._needed - CERTAIN))
        if self._agreed < self._needed and self._since <= GUESSES:
            places.setdefault(self._certain + self._since, 0)
            places.setdefault(self._certain, 0)
        return [
            Match(self._predicted[place : place + limit], agreed)
            for place, agreed in places.items()
            if place < len(self._predicted)
        ]

    def _found(self, token: int) -> tuple[int, int, int]:
        """The likeliest place to go on, how many tokens agree there, and how many should.

        The further a place lies from where the texts parted, the more tokens must agree before
        it is believed: somewhere in a long text any two tokens come again.
        """
        best = self._certain + self._since, 0, CERTAIN
        ahead = (self._certain, self._certain + AHEAD)
        behind = (max(0, self._certain - BEHIND), self._certain)
        for first, end in (ahead, behind):
            place = first - 1
            for _ in range(PLACES):
                try:
                    place = self._predicted.index(token, place + 1, end)
                except ValueError:
                    break
                agreed, needed = self._agreement(place), self._needed_at(place + 1)
                if agreed - needed > best[1] - best[2]:
                    best = place + 1, agreed, needed
        return best

    def _agreement(self, place: int) -> int:
        """How many of the last tokens agree with those up to `place`."""
        length = 0
        for emitted in self._recent:
            if length > place or self._predicted[place - length] != emitted:
                break
            length += 1
        return length

    def _needed_at(self, at: int) -> int:
        """Two tokens where as many or fewer were left out as have come, more further away."""
        distance = max(at - self._certain - self._since, self._certain - at, 0)
        return CERTAIN + distance.bit_length() // 2
