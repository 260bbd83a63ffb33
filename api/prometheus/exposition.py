"""Metric families and their text format."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Samples = Iterable[tuple[tuple[str, ...], float]]  # label values, value


def gauge(name: str, documentation: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """Return a gauge, whose name gets the prefix `twoviews_`."""
    return _add(GaugeMetricFamily(f"twoviews_{name}", documentation, labels=labels), samples)


def counter(name: str, documentation: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """Return a counter, whose name gets the prefix `twoviews_` and the suffix `_total`."""
    return _add(CounterMetricFamily(f"twoviews_{name}", documentation, labels=labels), samples)


def render(families: Iterable[Metric]) -> bytes:
    """Return the families in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Families(list(families)))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _add(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for label_values, value in samples:
        family.add_metric(label_values, value)
    return family
