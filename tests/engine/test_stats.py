"""What the engine counts of its own work."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engine.batch import RowKind
from engine.config import EngineConfig
from engine.drafting import Drafting
from engine.request import Request, RequestOutput, SamplingParams, Timing
from engine.scheduler import Scheduled
from engine.speculation.overhead import TOLERANCE, WINDOW
from engine.speculation.payoff import SHORTEST_BELIEF
from engine.speculation.planner import PLAIN
from engine.stats import CHOICES, PHASES, SpecDecodingStats
from tests import factories


def test_every_phase_of_a_step_is_timed() -> None:
    model = factories.tiny_model("Llama")
    adapters = {"bita": factories.random_adapter(model)}
    engine = factories.engine(factories.load(model, "Llama"), adapters)
    assert engine.step() == []
    assert not any(engine.stats().step_seconds.values()), "an idle engine counts no time"
    factories.run(engine, factories.requests([[1, 2, 3]]))
    seconds = engine.stats().step_seconds
    assert set(seconds) == set(PHASES)
    assert all(value > 0 for value in seconds.values())


def test_a_request_tells_how_long_it_waited_and_was_prefilled() -> None:
    model = factories.tiny_model("Llama")
    engine = factories.engine(factories.load(model, "Llama"), max_num_seqs=1)
    first, second = factories.requests([[1, 2, 3], [4, 5]], max_tokens=4)
    arrived = time.monotonic()
    for request in (first, second):
        engine.add(replace(request, arrived=arrived - 5.0))
    timings: dict[str, list[Timing]] = {first.request_id: [], second.request_id: []}
    while engine.has_work:
        for output in engine.step():
            timings[output.request_id] += [output.timing] if output.timing else []
    elapsed = time.monotonic() - arrived
    ((started,), (waited,)) = timings.values()
    assert started.prefill > 0
    assert 5.0 <= started.queue < waited.queue < elapsed + 5.0, "the second waits for the first"
    assert waited.queue + waited.prefill <= elapsed + 5.0


def test_what_adapters_do_is_counted_until_they_are_unloaded() -> None:
    model = factories.tiny_model("Llama")
    adapters = {"one": factories.random_adapter(model), "two": factories.random_adapter(model, 2)}
    engine = factories.engine(factories.load(model, "Llama"), adapters, max_num_seqs=2)
    for number, adapter in enumerate(["one", "one", "two", None]):
        request = Request(f"r{number}", [1, 2, 3], SamplingParams(max_tokens=8), adapter)
        engine.add(request if adapter else replace(request, speculation=False))
    engine.step()
    found = engine.stats().adapters
    running = {name: (stats.num_running, stats.num_waiting) for name, stats in found.items()}
    assert running == {"": (0, 1), "one": (2, 0), "two": (0, 1)}
    while engine.has_work:
        engine.step()
    found = engine.stats().adapters
    assert {name: stats.num_requests for name, stats in found.items()} == {
        "": 1,
        "one": 2,
        "two": 1,
    }
    emitted = {
        name: sum(n * length for length, n in enumerate(stats.acceptance_lengths, start=1))
        for name, stats in found.items()
    }
    assert emitted == {"": 7, "one": 14, "two": 7}, "all tokens but each request's first"
    engine.adapters.unload("one")
    assert set(engine.stats().adapters) == {"", "two"}


def drafting_of(stats: SpecDecodingStats) -> Drafting:
    """What counts into `stats`; it drafts nothing."""
    return Drafting(EngineConfig("tiny"), factories.COST, stats)


def one_sequence() -> list[Scheduled]:
    """A step in which one sequence decodes."""
    return [Scheduled(SimpleNamespace(num_computed_tokens=0), 0, PLAIN.fill(7))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "tokens", "choice", "plain"),
    [
        # COST: a forward of 1 row takes 1.0, of 64 1.5.
        ({RowKind.ROOT: 1}, 1, "plain", 1.25),
        ({RowKind.ROOT: 1, RowKind.NODE: 63}, 3, "drafted", 1.75 * 3 * 1.0 / 1.5),
        ({RowKind.ROOT: 1, RowKind.MASK: 63}, 1, "drafted", 1.75 * 1.0 / 1.5),
        # A prompt of 63 rows beside it is computed once, however many steps there are.
        ({RowKind.ROOT: 1, RowKind.PREFILL: 63}, 1, "plain", 1.75),
        (
            {RowKind.ROOT: 1, RowKind.PREFILL: 63, RowKind.NODE: 64},
            3,
            "drafted",
            3.25 * (1.5 + 2 * 1.0) / 3.0,
        ),
    ],
)
def test_plain_decoding_is_estimated_by_the_cost_of_its_rows(
    rows: dict[RowKind, int], tokens: int, choice: str, plain: float
) -> None:
    stats = SpecDecodingStats()
    counts = {**dict.fromkeys(RowKind, 0), **rows}
    seconds = factories.COST.of_rows(sum(rows.values())) + 0.25
    drafting_of(stats).weigh(
        one_sequence(), [RequestOutput("r", [1] * tokens)], counts, seconds, 0.0
    )
    assert stats.steps == {**dict.fromkeys(CHOICES, 0), choice: 1}
    assert stats.seconds == seconds
    assert stats.plain_seconds == pytest.approx(plain)


def test_a_step_in_which_drafting_rests_is_counted_as_such() -> None:
    stats = SpecDecodingStats()
    drafting = drafting_of(stats)
    drafted = {**dict.fromkeys(RowKind, 0), RowKind.ROOT: 1, RowKind.NODE: 63}
    bare = {**dict.fromkeys(RowKind, 0), RowKind.ROOT: 1}
    steps = [*[(drafted, 1.5)] * SHORTEST_BELIEF, (bare, 1.0)]
    for rows, seconds in steps:
        drafting.weigh(one_sequence(), [RequestOutput("r", [1])], rows, seconds, 0.0)
    assert stats.steps == {"drafted": SHORTEST_BELIEF, "plain": 0, "rested": 1}


def test_the_planner_is_told_what_steps_with_drafts_take_besides_their_forward() -> None:
    """By what such steps took, and steps without."""
    drafting = drafting_of(SpecDecodingStats())
    told = []
    for rows, seconds in (({RowKind.NODE: 63}, 1.75), ({}, 1.125)):
        counts = {**dict.fromkeys(RowKind, 0), RowKind.ROOT: 1, **rows}
        forward = factories.COST.of_rows(sum(counts.values()))
        for _ in range(WINDOW):
            outputs = [RequestOutput("r", [1])]
            drafting.weigh(one_sequence(), outputs, counts, seconds, forward)
        told.append(drafting.load(one_sequence()))
    first, second = told
    assert (first.overhead, first.drafting) == (pytest.approx(0.25, rel=TOLERANCE), 0.0)
    assert second.overhead == pytest.approx(0.125, rel=TOLERANCE)
    assert second.drafting == pytest.approx(0.125, rel=3 * TOLERANCE)
