"""What records of calls amount to: percentiles, rates. All times in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

PERCENTS = (50, 90, 99)


@dataclass(slots=True)
class Record:
    """One call, by the clock of its loop.

    intended: when it was to be sent; all latencies count from here, so that waiting in the client
        is not hidden. sent, ended: when it was, and when its last byte came.
    chunks: when each piece of text came. tokens: of the answer, as the server counts them.
    error: what went wrong, or None; a failed call has no latencies.
    """

    intended: float
    sent: float
    ended: float = math.nan
    chunks: list[float] = field(default_factory=list)
    tokens: int = 0
    text: str = ""
    error: str | None = None

    @property
    def ttft(self) -> float:
        """Time to first token; of an answer without text, to its end."""
        return (self.chunks[0] if self.chunks else self.ended) - self.intended

    @property
    def e2e(self) -> float:
        """Time to the end of the answer."""
        return self.ended - self.intended

    @property
    def gaps(self) -> list[float]:
        """Inter-token latency as a reader meets it: between pieces of text, of a token or more."""
        return [after - before for before, after in pairwise(self.chunks)]

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first."""
        if self.tokens < 2 or not self.chunks:
            return None
        return (self.chunks[-1] - self.chunks[0]) / (self.tokens - 1)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so much of `values` lies below, between neighbours linear; NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 of values."""
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTS}


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Throughput and latencies of one run.

    tokens_per_second counts from the first intended call to the last answer's end.
    """
    good = [r for r in records if r.error is None]
    tokens = sum(r.tokens for r in good)
    seconds = max((r.ended for r in good), default=0.0) - min(
        (r.intended for r in good), default=0.0
    )
    return {
        "calls": len(records),
        "failed": len(records) - len(good),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "ttft": percentiles([r.ttft for r in good]),
        "itl": percentiles([gap for r in good for gap in r.gaps]),
        "tpot": percentiles([r.tpot for r in good if r.tpot is not None]),
        "e2e": percentiles([r.e2e for r in good]),
    }
