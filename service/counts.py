"""The census: how much there is of everything, in four queries over all tenants."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.models import Dataset, Job, Worker
from service.db.session import now
from service.db.statuses import JobStatus
from service.doorbell import QUEUES


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers by label; ages are seconds, 0 when nothing waits."""

    jobs: dict[tuple[str, ...], int]  # (kind, status)
    datasets: dict[str, int]  # status
    depths: dict[str, int]  # queue
    ages: dict[str, float]  # queue
    workers: dict[str, int]  # queue


def count(session: Session, worker_seen_seconds: float) -> Counts:
    """Count everything; workers are those seen within `worker_seen_seconds`."""
    jobs = session.execute(select(Job.kind, Job.status, func.count()).group_by(Job.kind, Job.status))
    datasets = select(Dataset.status, func.count()).where(Dataset.deleted_at.is_(None)).group_by(Dataset.status)
    waiting = session.execute(
        select(Job.queue, func.count(), now() - func.min(Job.created_at))
        .where(Job.queue.in_(QUEUES), Job.status == JobStatus.QUEUED)
        .group_by(Job.queue)
    ).all()
    seen = select(Worker.queue, func.count()).where(Worker.seen_at > now() - worker_seen_seconds).group_by(Worker.queue)
    zeros = dict.fromkeys(QUEUES, 0)
    return Counts(
        jobs={(row[0], row[1]): row[2] for row in jobs},
        datasets={row[0]: row[1] for row in session.execute(datasets)},
        depths={**zeros, **{queue: number for queue, number, _ in waiting}},
        ages={**zeros, **{queue: max(0.0, float(age)) for queue, _, age in waiting}},
        workers={**zeros, **{row[0]: row[1] for row in session.execute(seen)}},
    )
