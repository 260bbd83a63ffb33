"""Prometheus metrics of this process's requests, and their text format."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)
Sample = tuple[tuple[str, ...], float]  # label values, value


class RequestMetrics:
    """Counts and durations of requests."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter("twoviews_requests", "Requests.", (*labels, "status"), registry=self._registry)
        self._seconds = Histogram(
            "twoviews_request_seconds", "Duration of requests.", labels, buckets=_SECONDS, registry=self._registry
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. An unknown method is counted as `other`, so that clients cannot create labels."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def render_gauges(gauges: Sequence["GaugeFamily"]) -> bytes:
    """Return gauges, which are computed at each scrape, in Prometheus' text format."""
    registry = CollectorRegistry()
    for name, documentation, labels, samples in gauges:
        gauge = Gauge(f"twoviews_{name}", documentation, labels, registry=registry)
        for label_values, value in samples:
            (gauge.labels(*label_values) if labels else gauge).set(value)
    return generate_latest(registry)


GaugeFamily = tuple[str, str, tuple[str, ...], Sequence[Sample]]  # name, documentation, labels, samples
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
