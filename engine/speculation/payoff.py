"""Whether drafting pays: what steps with drafts brought and took, against what they would have
taken without.

The planner decides by a measured cost curve and by how often drafts should be right. Both may be
wrong: of a machine that is shared, of sampled text that follows no profile. What is measured here
is the outcome, so that a server is not slower for having an adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 32
"""Steps that are judged together."""

SHORTEST_PAUSE, LONGEST_PAUSE = 64, 4096
"""Steps without drafts after a loss. Twice as many after every further one."""


@dataclass(slots=True)
class _Load:
    """Of all steps with about as many sequences: sums of the current window, and the verdict."""

    steps: int = 0
    tokens: float = 0.0
    sequences: float = 0.0
    seconds: float = 0.0
    plain_seconds: float = 0.0
    paused: int = 0
    pause: int = SHORTEST_PAUSE

    @property
    def gain(self) -> float:
        """Tokens a second with drafts over tokens a second without."""
        return self.tokens / self.sequences * self.plain_seconds / self.seconds

    def add(self, sequences: int, tokens: int, seconds: float, plain_seconds: float) -> None:
        """Count one step; after the last of a window go on, or pause."""
        self.steps += 1
        self.tokens += tokens
        self.sequences += sequences
        self.seconds += seconds
        self.plain_seconds += plain_seconds
        if self.steps < WINDOW:
            return
        if self.gain < 1.0:
            self.paused, self.pause = self.pause, min(2 * self.pause, LONGEST_PAUSE)
        else:
            self.pause = SHORTEST_PAUSE
        self.steps, self.tokens, self.sequences, self.seconds, self.plain_seconds = 0, 0, 0, 0, 0


class Payoff:
    """The verdict by load: one for 1 sequence, for 2, for 3 to 4, for 5 to 8, and so on."""

    def __init__(self) -> None:
        self._loads: dict[int, _Load] = {}

    def pays(self, sequences: int) -> bool:
        """Whether to draft in a step of so many sequences."""
        return not self._load(sequences).paused

    def observe(
        self, sequences: int, drafts: int, tokens: int, seconds: float, plain_seconds: float
    ) -> None:
        """Learn from a step.

        drafts: rows of drafts and of masks. tokens: emitted. seconds, plain_seconds: what the step
        took, and what it would have taken without those rows and without drafting.
        """
        load = self._load(sequences)
        if load.paused:
            load.paused -= 1
        elif drafts:
            load.add(sequences, tokens, seconds, plain_seconds)

    def _load(self, sequences: int) -> _Load:
        return self._loads.setdefault((sequences - 1).bit_length(), _Load())
