"""Counters of the engine. Counters only: cumulative since start unless called a gauge."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.speculation.sources import NAMES, count

PHASES = ("draft", "schedule", "batch", "forward", "verify", "commit", "emit")
"""Of a step, in their order."""

CHOICES = ("drafted", "plain", "rested")
"""What a decoding step verified: drafts or masks; none, as the planner chose or for want of any;
none, since drafting did not pay (`speculation.payoff`)."""


@dataclass(slots=True)
class SpecDecodingStats:
    """Speculation, in vLLM's terms.

    num_drafts: forwards that verified at least one draft token of a sequence.
    num_accepted_tokens_per_pos: accepted draft tokens by depth, depth 1 first.
    acceptance_lengths: entry k counts forwards of a decoding sequence that emitted k + 1 tokens,
        the bonus token included, whether or not anything was drafted.
    drafted_by_source, accepted_by_source: draft tokens by who proposed them; one that several
        proposed counts for each.
    steps: steps in which a sequence decoded, by choice.
    seconds, plain_seconds: what they took, and what plain decoding would have taken for the same
        tokens, as the cost of steps tells (`Drafting.weigh`); both 0 where the tree is fixed.
    """

    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_accepted_tokens_per_pos: list[int] = field(default_factory=list)
    acceptance_lengths: list[int] = field(default_factory=list)
    drafted_by_source: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    accepted_by_source: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHOICES, 0))
    seconds: float = 0.0
    plain_seconds: float = 0.0

    @property
    def mean_acceptance_length(self) -> float:
        """Tokens a forward of a decoding sequence emitted on average; 0 where none ran."""
        lengths = self.acceptance_lengths
        return sum(n * (i + 1) for i, n in enumerate(lengths)) / max(1, sum(lengths))

    def add(self, drafted: Sequence[int], accepted: Sequence[int]) -> None:
        """Count one verified forward of one sequence, given the sources of its drafts."""
        self._count(len(drafted), len(accepted))
        for totals, nodes in (
            (self.drafted_by_source, drafted),
            (self.accepted_by_source, accepted),
        ):
            if nodes:  # plain decoding has none
                for name, number in count(nodes).items():
                    totals[name] += number

    def _count(self, drafted: int, accepted: int) -> None:
        self.num_drafts += drafted > 0
        self.num_draft_tokens += drafted
        self.num_accepted_tokens += accepted
        _grow(self.num_accepted_tokens_per_pos, accepted)
        for depth in range(accepted):
            self.num_accepted_tokens_per_pos[depth] += 1
        _count_one(self.acceptance_lengths, accepted)


@dataclass(slots=True)
class AdapterStats:
    """What one adapter does, since it was loaded.

    num_requests: that drafted with it. num_running, num_waiting: gauges, requests.
    acceptance_lengths: as `SpecDecodingStats` has them.
    """

    num_requests: int = 0
    num_running: int = 0
    num_waiting: int = 0
    acceptance_lengths: list[int] = field(default_factory=list)

    def add(self, accepted: int) -> None:
        """Count one decoding forward of one sequence, by the draft tokens accepted."""
        _count_one(self.acceptance_lengths, accepted)


@dataclass(slots=True)
class EngineStats:
    """A snapshot of the engine.

    num_running, num_waiting: gauges, requests. kv_cache_usage: gauge, 0 to 1.
    num_preemptions: sequences whose KV was given up to be computed again.
    prefix_cache_queries, prefix_cache_hits: prompt tokens looked up and found.
    num_forwards: steps that ran the model. step_seconds: their total time, by phase. On a GPU the
        forward is only launched in its phase; verify waits for it.
    rows: rows computed, by kind (prefill, root, node, mask).
    adapters: by name of those that are loaded; "" for requests without one.
    """

    num_running: int = 0
    num_waiting: int = 0
    kv_cache_usage: float = 0.0
    num_preemptions: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    num_forwards: int = 0
    step_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    rows: dict[str, int] = field(
        default_factory=lambda: {"prefill": 0, "root": 0, "node": 0, "mask": 0}
    )
    speculation: SpecDecodingStats = field(default_factory=SpecDecodingStats)
    adapters: dict[str, AdapterStats] = field(default_factory=dict)


class PhaseClock:
    """Adds the time since it was last asked to a phase.

    started: when it was made, as `time.perf_counter` has it. total: of all phases of this clock.
    """

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self.total = seconds, 0.0
        self.started = self._last = time.perf_counter()

    def ended(self, phase: str) -> float:
        """Count the seconds since the phase before `phase` ended, or since the clock was made."""
        now = time.perf_counter()
        seconds = now - self._last
        self._seconds[phase] += seconds
        self.total += seconds
        self._last = now
        return seconds


def _count_one(counts: list[int], index: int) -> None:
    _grow(counts, index + 1)
    counts[index] += 1


def _grow(counts: list[int], length: int) -> None:
    counts.extend([0] * (length - len(counts)))
