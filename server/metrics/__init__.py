"""What Prometheus sees, under the names vLLM's dashboards and routers know.

The only importer of prometheus_client. What a request shows (latencies, tokens, codes) is counted
as it passes; what the engine counts is read from its latest stats at every scrape.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from server.client import Client
from server.config import ServerConfig
from server.intake import Intake
from server.metrics.engine import EngineCollector
from server.metrics.requests import GenerationMetrics, HttpMetrics
from server.metrics.series import Registered

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """All series of one server, in a registry of its own, present from the start."""

    def __init__(self, config: ServerConfig, client: Client, intake: Intake) -> None:
        model_name = config.model_names[0]
        self._registry = CollectorRegistry()
        make = Registered(self._registry, model_name)
        self.http = HttpMetrics(make, model_name)
        self.generation = GenerationMetrics(make, model_name)
        self._registry.register(EngineCollector(config, client, intake))

    def totals(self) -> dict[str, float]:
        """Series that have no label but the model's, by name."""
        return {
            sample.name: sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if len(sample.labels) == 1
        }

    def exposition(self) -> bytes:
        """All series in Prometheus' text format.

        Never negotiated: asked for OpenMetrics, prometheus_client rewrites `vllm:x` to `vllm_x`,
        and every dashboard and router that asks for the former finds nothing.
        """
        return generate_latest(self._registry)
