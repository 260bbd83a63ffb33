"""Counts of jobs, datasets and workers, of one tenant or of all, for Prometheus."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.orm import Session

from service.db.models import Dataset, Job, Worker
from service.db.session import now
from service.db.statuses import JobStatus
from service.doorbell import QUEUES


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts by label. Ages are in seconds, 0 for an empty queue."""

    jobs: dict[tuple[str, ...], int]  # (kind, status)
    datasets: dict[str, int]  # status
    queue_depths: dict[str, int]  # queue
    queue_ages: dict[str, float]  # queue; of the oldest queued job
    workers: dict[str, int]  # queue


def count_all(session: Session, worker_seen_seconds: float) -> Counts:
    """Return the counts over all tenants; of workers, those seen within `worker_seen_seconds`."""
    seen = select(Worker.queue, func.count()).where(Worker.seen_at > now() - worker_seen_seconds).group_by(Worker.queue)
    workers = {**_ZEROS, **{row[0]: row[1] for row in session.execute(seen)}}
    return _count(session, true(), true(), workers)


def count_of(session: Session, tenant_id: str) -> Counts:
    """Return the counts of the tenant, which has no workers."""
    return _count(session, Job.tenant_id == tenant_id, Dataset.tenant_id == tenant_id, {})


_ZEROS = dict.fromkeys(QUEUES, 0)


def _count(
    session: Session, of_jobs: ColumnElement[bool], of_datasets: ColumnElement[bool], workers: dict[str, int]
) -> Counts:
    jobs = session.execute(select(Job.kind, Job.status, func.count()).where(of_jobs).group_by(Job.kind, Job.status))
    datasets = (
        select(Dataset.status, func.count()).where(Dataset.deleted_at.is_(None), of_datasets).group_by(Dataset.status)
    )
    queued = session.execute(
        select(Job.queue, func.count(), now() - func.min(Job.created_at))
        .where(Job.queue.in_(QUEUES), Job.status == JobStatus.QUEUED, of_jobs)
        .group_by(Job.queue)
    ).all()
    return Counts(
        jobs={(row[0], row[1]): row[2] for row in jobs},
        datasets={row[0]: row[1] for row in session.execute(datasets)},
        queue_depths={**_ZEROS, **{queue: number for queue, number, _ in queued}},
        queue_ages={**_ZEROS, **{queue: max(0.0, float(age)) for queue, _, age in queued}},
        workers=workers,
    )
