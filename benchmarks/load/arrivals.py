"""When requests come, fixed before the first is sent: a slow server cannot slow them down."""

from __future__ import annotations

import random
from itertools import accumulate


def poisson(rate: float, count: int, seed: int) -> list[float]:
    """Seconds from the start of each of `count` arrivals, `rate` a second on average, ascending.

    The gaps are exponential and independent, so bursts happen as they do with many strangers.
    """
    gaps = random.Random(seed)
    return list(accumulate(gaps.expovariate(rate) for _ in range(count)))
