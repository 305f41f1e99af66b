"""Seconds a step takes on this machine: its forward by rows and context, drafting by the level."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

ROWS = (1, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256)
LEVELS, LEVEL_NODES = 4, 4
REPEATS = 3
MANY, LONG = 4, 32
"""Sequences of one row, and rows of one sequence, that are timed behind a longer context."""


@dataclass(frozen=True, slots=True)
class Load:
    """Sequences that decode in a step, and the committed tokens of each on average.

    overhead: seconds of a step besides its forward. drafting: further ones of a step with drafts,
        but for ranking them.
    """

    sequences: int
    context: int
    overhead: float = 0.0
    drafting: float = 0.0


@dataclass(frozen=True, slots=True)
class StepCostModel:
    """rows, seconds: a curve measured for one sequence; between its points cost is linear, beyond
        them too.
    level: seconds it takes to rank one level of draft trees among all tokens of the vocabulary.
    least_level: the same among hardly any.
    context: committed tokens of the sequence whose rows were timed.
    column, row_column: seconds that a further committed token takes, for its sequence and besides
        for each of the sequence's rows.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    level: float = 0.0
    least_level: float = 0.0
    context: int = 0
    column: float = 0.0
    row_column: float = 0.0

    def __call__(self, rows: int, load: Load) -> float:
        """Seconds of a step of so many rows in all. Shorter contexts count as the timed one."""
        fixed, a_row = self.further(load)
        return self.of_rows(rows) + fixed + a_row * rows

    def further(self, load: Load) -> tuple[float, float]:
        """Seconds that a load adds to the curve of one sequence: whatever the rows, and a row."""
        context = max(load.context, self.context)
        columns = load.sequences * context - self.context
        fixed = load.overhead + self.column * columns
        return fixed, self.row_column * (context - self.context)

    def of_rows(self, rows: int) -> float:
        """Seconds of a forward of so many rows of one sequence, behind the context timed."""
        right = min(max(bisect_left(self.rows, rows), 1), len(self.rows) - 1)
        x0, x1 = self.rows[right - 1], self.rows[right]
        y0, y1 = self.seconds[right - 1], self.seconds[right]
        return y0 + (y1 - y0) * (rows - x0) / (x1 - x0)

    def drafting_among(self, share: float) -> StepCostModel:
        """The same where levels are ranked among so much of the vocabulary."""
        level = self.least_level + (self.level - self.least_level) * share
        return replace(self, level=level)


Forward = Callable[[Sequence[int], int], None]
"""Runs so many rows of each sequence behind so many committed tokens."""


def measure(
    forward: Forward,
    rank: Callable[[int], None],
    rank_few: Callable[[int], None],
    max_rows: int,
    max_sequences: int,
    contexts: tuple[int, int],
) -> StepCostModel:
    """Time forwards and levels in turns, and take the quickest of each.

    A busy machine only ever adds time: what took longer than more rows did is not believed.

    rank, rank_few: rank one level of trees that have so many nodes on it, among all tokens of the
        vocabulary and among hardly any.
    contexts: committed tokens behind which the curve is timed, and more of them.
    """
    near, far = contexts
    sizes = [rows for rows in ROWS if rows <= max(max_rows, 4)]
    many, long = [1] * min(MANY, max_sequences), [max(r for r in sizes if r <= LONG)]
    times = _quickest(
        [
            *(partial(forward, [rows], near) for rows in sizes),
            *(partial(_descend, of) for of in (rank, rank_few)),
            *(partial(forward, lengths, past) for lengths in (many, long) for past in contexts),
        ]
    )
    seconds, (descent, least, *behind) = times[: len(sizes)], times[len(sizes) :]
    of_many, of_long = (
        (longer - shorter) / max(1, far - near) for shorter, longer in (behind[:2], behind[2:])
    )
    of_one = of_many / len(many)
    row_column = max(0.0, (of_long - of_one) / (long[0] - 1))
    return StepCostModel(
        rows=tuple(sizes),
        seconds=tuple(min(seconds[i:]) for i in range(len(sizes))),
        level=descent / LEVELS,
        least_level=min(descent, least) / LEVELS,
        context=near,
        column=max(0.0, of_one - row_column),
        row_column=row_column,
    )


def _quickest(runs: Sequence[Callable[[], None]]) -> list[float]:
    """Seconds of each, the least of several.

    Every run follows one of its own kind, which is not counted: so do a server's steps, and behind
    one of 256 rows a single row finds nothing cached and takes twice as long.
    """
    rounds = []
    for _ in range(REPEATS):
        rounds.append([(_seconds(run), _seconds(run))[1] for run in runs])
    return [min(times) for times in zip(*rounds, strict=True)]


def _descend(rank: Callable[[int], None]) -> None:
    """Levels one after the other, as a step ranks them: the first finds other things cached."""
    for _ in range(LEVELS):
        rank(LEVEL_NODES)


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
