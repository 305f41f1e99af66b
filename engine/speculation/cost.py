"""Seconds a forward takes by its number of rows, and drafting by the level, on this machine."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace

ROWS = (1, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256)
LEVEL_NODES = 4
REPEATS = 5


@dataclass(frozen=True, slots=True)
class StepCostModel:
    """rows, seconds: a measured curve; between its points cost is linear, beyond it too.

    level: seconds it takes to rank one level of draft trees among all tokens of the vocabulary.
    least_level: the same among hardly any.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    level: float = 0.0
    least_level: float = 0.0

    def __call__(self, rows: int) -> float:
        """Seconds of a forward of so many rows."""
        right = min(max(bisect_left(self.rows, rows), 1), len(self.rows) - 1)
        x0, x1 = self.rows[right - 1], self.rows[right]
        y0, y1 = self.seconds[right - 1], self.seconds[right]
        return y0 + (y1 - y0) * (rows - x0) / (x1 - x0)

    def drafting_among(self, share: float) -> StepCostModel:
        """The same where levels are ranked among so much of the vocabulary."""
        level = self.least_level + (self.level - self.least_level) * share
        return replace(self, level=level)


def measure(
    forward: Callable[[int], None],
    rank: Callable[[int], None],
    rank_few: Callable[[int], None],
    max_rows: int,
) -> StepCostModel:
    """Time `forward(rows)`, best of several, made monotone: more rows never cost less.

    rank, rank_few: rank one level of trees that have so many nodes on it, among all tokens of the
        vocabulary and among hardly any.
    """
    sizes = [r for r in ROWS if r <= max(max_rows, 4)]
    seconds: list[float] = []
    for rows in sizes:
        seconds.append(max([_best(forward, rows), *seconds[-1:]]))
    level, least = _best(rank, LEVEL_NODES), _best(rank_few, LEVEL_NODES)
    return StepCostModel(tuple(sizes), tuple(seconds), level, min(level, least))


def _best(run: Callable[[int], None], rows: int) -> float:
    """The quickest of several runs, the first of all not counted."""
    run(rows)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(rows)
        times.append(time.perf_counter() - start)
    return min(times)
