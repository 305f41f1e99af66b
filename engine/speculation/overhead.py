"""What a step takes besides its forward, as it was of late."""

from __future__ import annotations

import math
import statistics

WINDOW = 64
"""Steps after which it is looked at anew."""
TOLERANCE = 0.2
"""Share by which it may be off: every new value has the planner choose its trees anew, and remember
them. So there are few values, each by this share above the one below."""
LEAST = 1e-6


class Overhead:
    """seconds: a step's, by the median of the last steps, since a machine has slow moments; 0
    before a window of them was seen.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lately: list[float] = []

    def observe(self, seconds: float) -> None:
        """Learn from a step."""
        self._lately.append(seconds)
        if len(self._lately) < WINDOW:
            return
        median = statistics.median(self._lately)
        self._lately.clear()
        if abs(median - self.seconds) > TOLERANCE * self.seconds:
            step = math.log1p(TOLERANCE)
            self.seconds = math.exp(step * round(math.log(max(median, LEAST)) / step))
