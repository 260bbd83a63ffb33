"""The metrics of the service as families: of jobs, heartbeats, the data folder and the encoder."""

from collections.abc import Iterator
from typing import Any

from prometheus_client.metrics_core import Metric

from api.prometheus.exposition import counter, gauge
from service.doorbell import QUEUES
from service.monitoring.counts import QUEUE_OF_KIND, Counts
from service.monitoring.disk import DataFolder
from service.monitoring.heartbeats import Heartbeats
from service.workers import KEEPER


def of_counts(found: Counts) -> Iterator[Metric]:
    """Yield the families of jobs, attempts, datasets, queues and leases."""
    yield gauge("jobs", "Jobs.", ("kind", "status"), found.jobs.items())
    yield counter("jobs_ended", "Jobs that have ended.", ("kind", "status"), found.ended.items())
    yield counter("attempts", "Attempts that have ended.", ("kind", "outcome"), found.attempts.items())
    datasets = [((status,), number) for status, number in found.datasets.items()]
    yield gauge("datasets", "Datasets that are not deleted.", ("status",), datasets)
    queued = [((QUEUE_OF_KIND.get(kind, "train"), kind), of_kind) for kind, of_kind in found.queued.items()]
    yield gauge("queue_depth", "Queued jobs.", ("queue", "kind"), [(labels, one.jobs) for labels, one in queued])
    yield gauge(
        "queue_oldest_seconds",
        "How long the oldest queued job has been queued.",
        ("queue", "kind"),
        [(labels, one.oldest_seconds) for labels, one in queued],
    )
    leases = [((kind,), of_kind) for kind, of_kind in found.leases.items()]
    yield gauge(
        "lease_heartbeat_age_seconds",
        "Age of the oldest last heartbeat of a running job.",
        ("kind",),
        [(labels, one.heartbeat_seconds) for labels, one in leases],
    )
    yield gauge("leases_expired", "Running jobs without a lease.", ("kind",), [(k, one.expired) for k, one in leases])


def of_heartbeats(found: dict[str, Heartbeats]) -> Iterator[Metric]:
    """Yield the families of workers and keepers."""
    yield gauge("workers", "Workers seen recently.", ("queue",), [((name,), found[name].recent) for name in QUEUES])
    yield gauge(
        "worker_heartbeat_age_seconds",
        "Age of the newest heartbeat of a worker.",
        ("queue",),
        [((name,), age) for name in QUEUES if (age := found[name].newest_seconds) is not None],
    )
    keepers = found[KEEPER]
    yield gauge("keepers", "Keepers seen recently.", (), [((), keepers.recent)])
    age = keepers.newest_seconds
    yield gauge(
        "keeper_heartbeat_age_seconds",
        "Age of the newest heartbeat of a keeper.",
        (),
        [] if age is None else [((), age)],
    )


def of_database(seconds: float) -> Iterator[Metric]:
    """Yield the family of the database's time for the smallest query."""
    yield gauge("database_answer_seconds", "Time for a query that reads no table.", (), [((), seconds)])


def of_data_folder(found: DataFolder | None) -> Iterator[Metric]:
    """Yield the families of the data folder; None: it did not answer."""
    yield gauge("storage_up", "Whether the data folder answers.", (), [((), found is not None)])
    if found is None:
        return
    yield gauge("storage_free_bytes", "Free bytes of the data disk.", (), [((), found.free_bytes)])
    yield gauge("storage_size_bytes", "Size of the data disk.", (), [((), found.size_bytes)])
    runs = [((name,), run) for name, run in found.last_runs.items()]
    yield gauge(
        "maintenance_age_seconds",
        "Time since a backup or a verification ended.",
        ("run",),
        [(labels, run.age_seconds) for labels, run in runs],
    )
    damaged = [((), run.damaged) for name, run in found.last_runs.items() if name == "verify"]
    yield gauge("verify_damaged_files", "Files found damaged or missing by the last verification.", (), damaged)


def of_encoder(health: dict[str, Any] | None) -> Iterator[Metric]:
    """Yield the families of the encoder's health; None: it did not answer."""
    yield gauge("encoder_up", "Whether the encoder answers.", (), [((), health is not None)])
    if health is None:
        return
    yield gauge("encoder_waiting_images", "Images without an answer yet.", (), [((), health["waiting"])])
    yield gauge("encoder_queue_images", "Images that one owner may have waiting.", (), [((), health["places"])])
    yield gauge("encoder_models", "Loaded models.", (), [((), len(health["models"]))])
    for name, documentation in (
        ("images", "Images embedded."),
        ("batches", "Forward passes."),
        ("refusals", "Requests refused because the queue was full."),
    ):
        yield counter(f"encoder_{name}", documentation, (), [((), health[name])])
