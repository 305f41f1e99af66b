"""The engine's counters and state, as they stand when scraped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.stats import AdapterStats, EngineStats, SpecDecodingStats
from server import health
from server.client import Client
from server.config import ServerConfig
from server.intake import Intake
from server.metrics.series import Scraped

MAX_ACCEPTANCE_LENGTH = 16
NO_ADAPTER = "(none)"
"""The label of requests that no adapter drafts for; no adapter can be called this."""


class EngineCollector(Collector):
    """Series of one client's engine."""

    def __init__(self, config: ServerConfig, client: Client, intake: Intake) -> None:
        self._config, self._client, self._intake = config, client, intake
        self._make = Scraped(config.model_names[0])

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would otherwise collect, before there is an engine to ask."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        stats = self._client.stats
        adapters = {name or NO_ADAPTER: adapter for name, adapter in stats.adapters.items()}
        yield from self._state()
        yield from self._load(stats)
        yield from self._work(stats)
        yield from self._speculation(stats.speculation)
        yield from self._adapters(adapters or {NO_ADAPTER: AdapterStats()})

    def _state(self) -> Iterator[Metric]:
        make, client, info = self._make, self._client, self._client.info
        ready = health.check(client, self._intake).ready
        yield make.gauge("bita_engine_ready", "Whether requests are served.", ready)
        if client.is_ready:  # while it starts there is nothing that could stall
            age = client.heartbeat_age
            yield make.gauge("bita_engine_step_age_seconds", "Since its last sign of life.", age)
        restarts = client.num_restarts
        yield make.counter("bita_engine_restarts", "Engines started after the first.", restarts)
        what = {"version": version("bita-serve"), "device": info.device, "dtype": info.dtype}
        yield make.gauge("bita_build_info", "What runs here.", 1, **what)
        blocks = {"block_size": str(info.block_size), "num_gpu_blocks": str(info.num_blocks)}
        yield make.gauge("vllm:cache_config_info", "The KV cache.", 1, **blocks)

    def _load(self, stats: EngineStats) -> Iterator[Metric]:
        make = self._make
        yield make.gauge("vllm:num_requests_running", "Requests decoding.", stats.num_running)
        yield make.gauge("vllm:num_requests_waiting", "Requests queued.", stats.num_waiting)
        yield make.gauge("vllm:kv_cache_usage_perc", "KV in use, 0 to 1.", stats.kv_cache_usage)
        for name, help_text, value in (
            ("vllm:num_preemptions", "Sequences computed again.", stats.num_preemptions),
            ("vllm:prefix_cache_queries", "Prompt tokens looked up.", stats.prefix_cache_queries),
            ("vllm:prefix_cache_hits", "Prompt tokens found.", stats.prefix_cache_hits),
        ):
            yield make.counter(name, help_text, value)

    def _work(self, stats: EngineStats) -> Iterator[Metric]:
        make, speculation = self._make, stats.speculation
        yield make.counter("bita_forwards", "Steps that ran the model.", stats.num_forwards)
        phases, seconds = stats.step_seconds, "bita_step_seconds"
        yield make.counters(seconds, "Time of steps, by phase.", "phase", phases)
        yield make.counters("bita_rows", "Rows computed, by kind.", "kind", stats.rows)
        chosen, help_text = speculation.steps, "Steps that decoded, by what was chosen."
        yield make.counters("bita_decode_steps", help_text, "choice", chosen)
        for name, help_text, value in (
            ("bita_decode_seconds", "Time of steps that decoded.", speculation.seconds),
            (
                "bita_plain_decode_seconds",
                "What plain decoding would have taken for the same tokens, estimated.",
                speculation.plain_seconds,
            ),
        ):
            yield make.counter(name, help_text, value)

    def _speculation(self, stats: SpecDecodingStats) -> Iterator[Metric]:
        make, prefix = self._make, "vllm:spec_decode_num_"
        for name, help_text, value in (
            ("drafts", "Forwards that verified a draft.", stats.num_drafts),
            ("draft_tokens", "Draft tokens verified.", stats.num_draft_tokens),
            ("accepted_tokens", "Draft tokens accepted.", stats.num_accepted_tokens),
        ):
            yield make.counter(prefix + name, help_text, value)
        # At least one position, so that the series is there before the first draft.
        by_position = stats.num_accepted_tokens_per_pos or [0]
        yield make.counters(
            prefix + "accepted_tokens_per_pos",
            "Draft tokens accepted, by depth from 0.",
            "position",
            {str(position): count for position, count in enumerate(by_position)},
        )
        for name, help_text, by_source in (
            ("bita_draft_tokens", "Draft tokens verified, by source.", stats.drafted_by_source),
            ("bita_accepted_tokens", "Those accepted, by source.", stats.accepted_by_source),
        ):
            yield make.counters(name, help_text, "source", by_source)

    def _adapters(self, adapters: Mapping[str, AdapterStats]) -> Iterator[Metric]:
        make, label = self._make, "adapter"
        asked = {name: stats.num_requests for name, stats in adapters.items()}
        yield make.counters("bita_adapter_requests", "Requests, by adapter.", label, asked)
        running = {name: float(stats.num_running) for name, stats in adapters.items()}
        name, help_text = "bita_adapter_requests_running", "Requests decoding, by adapter."
        yield make.gauges(name, help_text, label, running)
        yield self._acceptance({name: s.acceptance_lengths for name, s in adapters.items()})
        named = {name: stats for name, stats in adapters.items() if name != NO_ADAPTER}
        if named:
            yield make.gauge(
                "vllm:lora_requests_info",
                "Adapters that requests use, for routers; the value is the time.",
                time.time(),
                max_lora=str(self._config.engine.max_adapters or len(named)),
                running_lora_adapters=",".join(n for n, s in named.items() if s.num_running),
                waiting_lora_adapters=",".join(n for n, s in named.items() if s.num_waiting),
            )

    def _acceptance(self, by_adapter: Mapping[str, Sequence[int]]) -> Metric:
        """Entry k of an adapter's counts are forwards that emitted k + 1 tokens."""
        label = self._make.label
        family = HistogramMetricFamily(
            "bita_acceptance_length",
            "Tokens a forward emitted for a sequence, the bonus token included.",
            labels=[*label, "adapter"],
        )
        for adapter, counts in by_adapter.items():
            buckets = [
                (f"{length}.0", float(sum(counts[:length])))
                for length in range(1, MAX_ACCEPTANCE_LENGTH + 1)
            ]
            buckets.append(("+Inf", float(sum(counts))))
            total = sum(length * count for length, count in enumerate(counts, start=1))
            family.add_metric([*label.values(), adapter], buckets, total)
        return family
