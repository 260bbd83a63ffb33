"""Counters: what Prometheus reads of this process."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)
Sample = tuple[tuple[str, ...], float]


class RequestMetrics:
    """Requests as they pass; everything else is looked up when Prometheus asks."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter(
            "twoviews_requests", "Requests answered.", (*labels, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "twoviews_request_seconds", "How long they took.", labels, buckets=_SECONDS, registry=self._registry
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; a method that HTTP does not know is `other`, so that nobody can invent labels."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self, gauges: Sequence["Looked"]) -> bytes:
        """The counters and the gauges in Prometheus' text format."""
        registry = CollectorRegistry()
        for name, about, labels, samples in gauges:
            gauge = Gauge(f"twoviews_{name}", about, labels, registry=registry)
            for values, number in samples:
                (gauge.labels(*values) if labels else gauge).set(number)
        return generate_latest(self._registry) + generate_latest(registry)


Looked = tuple[str, str, tuple[str, ...], Sequence[Sample]]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
