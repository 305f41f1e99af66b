"""The client's `prediction`: how far the output follows it, and where it goes on in it.

Where the two part, the output is looked for again ahead in the prediction, by its last tokens.
Until two of them agree, the likeliest guesses are that as many tokens were replaced as have come
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
WINDOW = 1024
PLACES = 32
LONGEST = 8
GUESSES = 16


class Alignment:
    """A predicted text beside the growing output.

    accepted: predicted tokens that the output has, in order, in runs of at least `CERTAIN`.
    """

    def __init__(self, predicted: Sequence[int]) -> None:
        self.accepted = 0
        self._predicted = list(predicted)
        self._at, self._agreed = 0, START
        # Where they last agreed for certain, and how many tokens were emitted since.
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
                self._at, self._agreed = self._found(token)
            if self._agreed >= CERTAIN:
                self.accepted += min(self._agreed, self._at - self._certain, self._since)
                self._certain, self._since = self._at, 0

    def matches(self, limit: int) -> list[Match]:
        """As `Finder.matches`: the place found, and guesses while it is not certain."""
        places = {self._at: self._agreed}
        if self._agreed < CERTAIN and self._since <= GUESSES:
            places.setdefault(self._certain + self._since, 0)
            places.setdefault(self._certain, 0)
        return [
            Match(self._predicted[place : place + limit], agreed)
            for place, agreed in places.items()
            if place < len(self._predicted)
        ]

    def _found(self, token: int) -> tuple[int, int]:
        """The place after the nearest longest agreement ahead, and how many tokens agree."""
        predicted = self._predicted
        at, agreed = self._certain + self._since, 0
        place, end = self._certain - 1, self._certain + WINDOW
        for _ in range(PLACES):
            try:
                place = predicted.index(token, place + 1, end)
            except ValueError:
                break
            length = 0
            for emitted in self._recent:
                if length > place or predicted[place - length] != emitted:
                    break
                length += 1
            if length > agreed:
                at, agreed = place + 1, length
        return at, agreed
