"""Prometheus metrics of this process: its requests, the problems that it answers with, its memory and open files.

Each process counts its own; scrape every one, not the proxy before them.
"""

from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

from service.errors import Error

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Refusals that alerts watch: they are 0 from the start, because an increase from nothing is none to Prometheus.
_REFUSALS = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
INTERNAL_ERROR = "internal_error"


class RequestMetrics:
    """Counts and durations of requests, and counts of problems."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter("twoviews_requests", "Requests.", (*labels, "status"), registry=self._registry)
        self._seconds = Histogram(
            "twoviews_request_seconds", "Duration of requests.", labels, buckets=_SECONDS, registry=self._registry
        )
        self._problems = Counter(
            "twoviews_problems", "Responses that are a problem.", ("status", "code"), registry=self._registry
        )
        self._problems.labels("500", INTERNAL_ERROR)
        for error in _list_errors():
            if error.status in _REFUSALS:
                self._problems.labels(str(int(error.status)), error().code)
        ProcessCollector(registry=self._registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. An unknown method is counted as `other`, so that clients cannot create labels."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def count_problem(self, status: int, code: str) -> None:
        """Count one response that is a problem."""
        self._problems.labels(str(int(status)), code).inc()

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def _list_errors() -> list[type[Error]]:
    """Return every class of errors, depth first."""
    found: list[type[Error]] = []
    pending: list[type[Error]] = [Error]
    while pending:
        found.append(error := pending.pop())
        pending += error.__subclasses__()
    return found
