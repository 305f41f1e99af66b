"""What Prometheus sees, under the names vLLM's dashboards and routers know.

The only importer of prometheus_client. What a request shows (latencies, tokens) is counted here
as it passes; what the engine counts is read from its latest stats at every scrape.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from engine.request import RequestOutput
from engine.stats import EngineStats, SpecDecodingStats

CONTENT_TYPE = CONTENT_TYPE_LATEST
FINISHED_REASONS = ("stop", "length", "abort", "error")
MAX_ACCEPTANCE_LENGTH = 16

TTFT_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_BUCKETS = (
    *(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
E2E_BUCKETS = (
    *(0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0),
    *(50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class Metrics:
    """All series of one server, in a registry of its own, present from the start."""

    def __init__(self, model_name: str, stats: Callable[[], EngineStats]) -> None:
        self.registry = CollectorRegistry()
        label = {"model_name": model_name}

        def counter(name: str, help_text: str) -> Counter:
            return Counter(name, help_text, ["model_name"], registry=self.registry)

        def histogram(name: str, help_text: str, buckets: Sequence[float]) -> Histogram:
            family = Histogram(
                name, help_text, ["model_name"], registry=self.registry, buckets=buckets
            )
            return family.labels(**label)

        self._prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens.").labels(**label)
        self._generated = counter("vllm:generation_tokens", "Generated tokens.").labels(**label)
        finished = Counter(
            "vllm:request_success",
            "Requests that ended, by how.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self._finished = {
            reason: finished.labels(finished_reason=reason, **label) for reason in FINISHED_REASONS
        }
        self._ttft = histogram(
            "vllm:time_to_first_token_seconds", "Arrival to first token.", TTFT_BUCKETS
        )
        self._itl = histogram(
            "vllm:inter_token_latency_seconds",
            "A step's time divided by the tokens it emitted, once a token.",
            ITL_BUCKETS,
        )
        self._e2e = histogram(
            "vllm:e2e_request_latency_seconds", "Arrival to last token.", E2E_BUCKETS
        )
        self.registry.register(_EngineCollector(model_name, stats))

    async def observe(
        self, outputs: AsyncGenerator[RequestOutput, None]
    ) -> AsyncGenerator[RequestOutput, None]:
        """Pass one request's outputs on, counting them; closes `outputs` when it ends."""
        reason = "abort"
        arrived = previous = time.perf_counter()
        started = False
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    now = time.perf_counter()
                    if not started:
                        self._prompt_tokens.inc(output.num_prompt_tokens)
                    tokens = len(output.token_ids)
                    self._generated.inc(tokens)
                    if tokens and not started:
                        self._ttft.observe(now - arrived)
                    for _ in range(tokens if started else 0):
                        self._itl.observe((now - previous) / tokens)
                    started, previous = True, now
                    if output.finish_reason is not None:
                        reason = output.finish_reason.value
                    yield output
        except Exception:
            reason = "error"
            raise
        finally:
            self._finished[reason].inc()
            if reason in ("stop", "length"):
                self._e2e.observe(previous - arrived)

    def totals(self) -> dict[str, float]:
        """Series that have no label but the model's, by name."""
        return {
            sample.name: sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if len(sample.labels) == 1
        }

    def exposition(self) -> bytes:
        """All series in Prometheus' text format.

        Never negotiated: asked for OpenMetrics, prometheus_client rewrites `vllm:x` to `vllm_x`,
        and every dashboard and router that asks for the former finds nothing.
        """
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """The engine's counters, as they stand when scraped."""

    def __init__(self, model_name: str, stats: Callable[[], EngineStats]) -> None:
        self._labels, self._stats = {"model_name": model_name}, stats

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would otherwise collect, before there is an engine to ask."""
        return ()

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        yield self._gauge("vllm:num_requests_running", "Requests decoding.", stats.num_running)
        yield self._gauge("vllm:num_requests_waiting", "Requests queued.", stats.num_waiting)
        yield self._gauge("vllm:kv_cache_usage_perc", "KV in use, 0 to 1.", stats.kv_cache_usage)
        for name, help_text, value in (
            ("vllm:num_preemptions", "Sequences computed again.", stats.num_preemptions),
            ("vllm:prefix_cache_queries", "Prompt tokens looked up.", stats.prefix_cache_queries),
            ("vllm:prefix_cache_hits", "Prompt tokens found.", stats.prefix_cache_hits),
            ("bita_forwards", "Steps that ran the model.", stats.num_forwards),
        ):
            yield self._counter(name, help_text, {(): value})
        phases: dict[tuple[str, ...], float] = {
            (phase,): seconds for phase, seconds in stats.step_seconds.items()
        }
        yield self._counter("bita_step_seconds", "Time of steps, by phase.", phases, "phase")
        rows: dict[tuple[str, ...], float] = {(kind,): count for kind, count in stats.rows.items()}
        yield self._counter("bita_rows", "Rows computed, by kind.", rows, "kind")
        yield from self._speculation(stats.speculation)

    def _speculation(self, stats: SpecDecodingStats) -> Iterator[Metric]:
        prefix = "vllm:spec_decode_num_"
        for name, help_text, value in (
            ("drafts", "Forwards that verified a draft.", stats.num_drafts),
            ("draft_tokens", "Draft tokens verified.", stats.num_draft_tokens),
            ("accepted_tokens", "Draft tokens accepted.", stats.num_accepted_tokens),
        ):
            yield self._counter(prefix + name, help_text, {(): value})
        # At least one position, so that the series is there before the first draft.
        by_position = stats.num_accepted_tokens_per_pos or [0]
        yield self._counter(
            prefix + "accepted_tokens_per_pos",
            "Draft tokens accepted, by depth from 0.",
            {(str(position),): count for position, count in enumerate(by_position)},
            "position",
        )
        for name, help_text, by_source in (
            ("bita_draft_tokens", "Draft tokens verified, by source.", stats.drafted_by_source),
            ("bita_accepted_tokens", "Those accepted, by source.", stats.accepted_by_source),
        ):
            values: dict[tuple[str, ...], float] = {(s,): n for s, n in by_source.items()}
            yield self._counter(name, help_text, values, "source")
        yield self._acceptance(stats.acceptance_lengths)

    def _acceptance(self, counts: Sequence[int]) -> Metric:
        """Entry k of `counts` are forwards that emitted k + 1 tokens."""
        buckets = [
            (f"{length}.0", float(sum(counts[:length])))
            for length in range(1, MAX_ACCEPTANCE_LENGTH + 1)
        ]
        buckets.append(("+Inf", float(sum(counts))))
        family = HistogramMetricFamily(
            "bita_acceptance_length",
            "Tokens a forward emitted for a sequence, the bonus token included.",
            labels=list(self._labels),
        )
        total = sum(length * count for length, count in enumerate(counts, start=1))
        family.add_metric(list(self._labels.values()), buckets, total)
        return family

    def _gauge(self, name: str, help_text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, help_text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(
        self, name: str, help_text: str, values: Mapping[tuple[str, ...], float], *labels: str
    ) -> Metric:
        family = CounterMetricFamily(name, help_text, labels=[*self._labels, *labels])
        for own, value in values.items():
            family.add_metric([*self._labels.values(), *own], value)
        return family
