"""How series are named and labelled: every one has `model_name`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class Registered:
    """Makes series that are counted as things happen, in one registry."""

    def __init__(self, registry: CollectorRegistry, model_name: str) -> None:
        self._registry, self._model_name = registry, model_name

    def counter(self, name: str, help_text: str) -> Counter:
        """A counter, without the `_total` it is exposed with."""
        return self.labelled(name, help_text).labels(self._model_name)

    def labelled(self, name: str, help_text: str, *labels: str) -> Counter:
        """A counter with further labels, whose values follow the model's name."""
        return Counter(name, help_text, ["model_name", *labels], registry=self._registry)

    def histogram(self, name: str, help_text: str, buckets: Sequence[float]) -> Histogram:
        """A histogram with these upper bounds."""
        family = Histogram(
            name, help_text, ["model_name"], registry=self._registry, buckets=buckets
        )
        return family.labels(self._model_name)


class Scraped:
    """Makes series of what is known when a scrape asks."""

    def __init__(self, model_name: str) -> None:
        self.label = {"model_name": model_name}

    def gauge(self, name: str, help_text: str, value: float, **labels: str) -> Metric:
        """One gauge."""
        family = GaugeMetricFamily(name, help_text, labels=[*self.label, *labels])
        family.add_metric([*self.label.values(), *labels.values()], value)
        return family

    def gauges(self, name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
        """A gauge for every value of a label."""
        family = GaugeMetricFamily(name, help_text, labels=[*self.label, label])
        for own, value in values.items():
            family.add_metric([*self.label.values(), own], value)
        return family

    def counter(self, name: str, help_text: str, value: float) -> Metric:
        """One counter, without the `_total` it is exposed with."""
        family = CounterMetricFamily(name, help_text, labels=list(self.label))
        family.add_metric(list(self.label.values()), value)
        return family

    def counters(
        self, name: str, help_text: str, label: str, values: Mapping[str, float]
    ) -> Metric:
        """A counter for every value of a label."""
        family = CounterMetricFamily(name, help_text, labels=[*self.label, label])
        for own, value in values.items():
            family.add_metric([*self.label.values(), own], value)
        return family
