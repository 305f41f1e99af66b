"""Whether drafting pays: what steps with drafts brought and took, against steps without.

The planner decides by a measured cost curve and by how often drafts should be right. Both may be
wrong: of a machine that is shared, of trees that cost more to verify than the rows that were timed,
of sampled text that follows no profile. What is measured here is the outcome, so that a server is
not slower for having an adapter.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

WINDOW, SHORTEST_WINDOW = 64, 16
"""Times that a sequence decoded after which there is a verdict, and the fewest steps: how many
tokens a sequence gets of a step varies, and how long steps take does too."""

REMEMBERED = 64, 16
"""Last steps with drafts, and without, that a verdict is made of."""

PROBE, SETTLING = 16, 4
"""Steps without drafts that tell what those take, and how many of them, the first, do not: right
after steps with drafts they find other things cached."""

MARGIN = 1.05
"""Gain below which drafting counts as a loss: what is measured on a shared machine is no surer."""

DOUBTS, LATER_DOUBTS = 2, 1
"""Losses in a row that are looked at anew before one is believed: the first time, and after a
pause, when to look so often would cost more than a short run has to lose."""

SHORTEST_BELIEF, LONGEST_BELIEF = 32, 1024
"""Steps with drafts for which one goes by what they told. Twice as many after every further one."""

SHORTEST_PAUSE, LONGEST_PAUSE = 512, 16_384
"""Steps without drafts after a loss. Twice as many after every further one."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of so many sequences.

    drafts: rows of drafts and of masks. seconds: that it took. cost: by the cost model.
    plain: for as many tokens without drafts, by the cost model. prompts: whether it also ran some.
    """

    sequences: int
    drafts: int
    seconds: float
    cost: float
    plain: float
    prompts: bool = False

    @property
    def slowness(self) -> float:
        """Of the step against the cost model."""
        return self.seconds / self.cost


@dataclass(slots=True)
class _Verdict:
    """Of all steps with about as many sequences.

    drafted: the last steps with drafts. plain: the last ones without.
    bias: slowness of steps without drafts over that of steps with, when both were last there at a
        verdict or at the end of a probe; 1 before.
    steps: with drafts since the last verdict. age: since one without was last remembered. settled:
        steps without in a row.
    rest: steps without drafts to come. doubts: losses that will still be looked at anew.
    """

    drafted: deque[Step] = field(default_factory=lambda: deque(maxlen=REMEMBERED[0]))
    plain: deque[Step] = field(default_factory=lambda: deque(maxlen=REMEMBERED[1]))
    bias: float = 1.0
    steps: int = 0
    age: int = 0
    settled: int = 0
    rest: int = 0
    doubts: int = DOUBTS
    pause: int = SHORTEST_PAUSE
    belief: int = SHORTEST_BELIEF

    def compare(self) -> None:
        """Take `bias` anew, where there are steps with drafts and without.

        By medians, since some steps are slow for reasons of their own. Steps that only decode and
        those with prompts are apart, since drafts slow them differently.
        """
        if not (self.plain and self.drafted):
            return
        kinds = [[s for s in self.drafted if s.prompts == prompts] for prompts in (False, True)]
        seconds = sum(_slowness(kind) * sum(step.cost for step in kind) for kind in kinds if kind)
        self.bias = _slowness(self.plain) * sum(step.cost for step in self.drafted) / seconds

    @property
    def gain(self) -> float:
        """Tokens a second with drafts over tokens a second without."""
        cost = sum(step.cost for step in self.drafted)
        return self.bias * sum(step.plain for step in self.drafted) / cost

    def add(self, step: Step) -> None:
        """Count a step with drafts."""
        self.drafted.append(step)
        self.steps += 1
        self.age += 1
        if self.steps >= max(SHORTEST_WINDOW, WINDOW / step.sequences):
            self.steps = 0
            self.judge()
        if self.age >= self.belief and not self.rest:
            self.probe()

    def add_plain(self, step: Step) -> None:
        """Count a step without."""
        self.settled += 1
        if self.settled > SETTLING:
            self.age = 0
            self.plain.append(step)
        if self.settled == PROBE:  # medians, which are not for every step
            self.compare()

    def judge(self) -> None:
        """Go on, or pause.

        The first loss must be seen again and again. Steps with drafts and without were taken at
        different times, and a machine that was slow in one of them has cost many a server its
        drafts: after the first loss both are looked at anew, one right after the other.
        """
        self.compare()
        if not self.plain:
            self.probe()
        elif self.gain >= MARGIN:
            self.pause, self.doubts = SHORTEST_PAUSE, DOUBTS
        elif self.doubts:
            self.rest, self.doubts = PROBE, self.doubts - 1
            self.drafted.clear()
            self.plain.clear()
        else:
            self.rest, self.pause = self.pause, min(2 * self.pause, LONGEST_PAUSE)
            self.doubts = LATER_DOUBTS
            self.drafted.clear()

    def probe(self) -> None:
        """Rest to see what steps without drafts take: not at first, when all steps are slow."""
        self.rest, self.belief = PROBE, min(2 * self.belief, LONGEST_BELIEF)


def _slowness(steps: Collection[Step]) -> float:
    return statistics.median(step.slowness for step in steps)


class Payoff:
    """The verdict by load: one for 1 sequence, for 2, for 3 to 4, for 5 to 8, and so on."""

    def __init__(self) -> None:
        self._verdicts: dict[int, _Verdict] = {}

    def pays(self, sequences: int) -> bool:
        """Whether to draft in a step of so many sequences."""
        return not self._verdict(sequences).rest

    def plain_seconds(self, step: Step) -> float:
        """Seconds that the tokens of a step would have taken without drafts."""
        if not step.drafts:
            return step.seconds
        return step.seconds * step.plain / step.cost * self._verdict(step.sequences).bias

    def observe(self, step: Step) -> None:
        """Learn from a step."""
        verdict = self._verdict(step.sequences)
        if step.drafts:
            verdict.settled = 0
        else:
            verdict.add_plain(step)
        if verdict.rest:
            verdict.rest -= 1
        elif step.drafts:
            verdict.add(step)

    def _verdict(self, sequences: int) -> _Verdict:
        load = (sequences - 1).bit_length()
        if load not in self._verdicts:
            # Where drafts lost at one load, they will hardly win at another.
            doubts = min((verdict.doubts for verdict in self._verdicts.values()), default=DOUBTS)
            self._verdicts[load] = _Verdict(doubts=max(doubts, LATER_DOUBTS))
        return self._verdicts[load]
