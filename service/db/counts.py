"""Counts of jobs, datasets and workers over all tenants, for Prometheus."""

from dataclasses import dataclass

from sqlalchemy import func, select
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
    """Return the counts; of workers, those seen within `worker_seen_seconds`."""
    jobs = session.execute(select(Job.kind, Job.status, func.count()).group_by(Job.kind, Job.status))
    datasets = select(Dataset.status, func.count()).where(Dataset.deleted_at.is_(None)).group_by(Dataset.status)
    queued = session.execute(
        select(Job.queue, func.count(), now() - func.min(Job.created_at))
        .where(Job.queue.in_(QUEUES), Job.status == JobStatus.QUEUED)
        .group_by(Job.queue)
    ).all()
    seen = select(Worker.queue, func.count()).where(Worker.seen_at > now() - worker_seen_seconds).group_by(Worker.queue)
    zeros = dict.fromkeys(QUEUES, 0)
    return Counts(
        jobs={(row[0], row[1]): row[2] for row in jobs},
        datasets={row[0]: row[1] for row in session.execute(datasets)},
        queue_depths={**zeros, **{queue: number for queue, number, _ in queued}},
        queue_ages={**zeros, **{queue: max(0.0, float(age)) for queue, _, age in queued}},
        workers={**zeros, **{row[0]: row[1] for row in session.execute(seen)}},
    )
