"""Sharers: internal jobs, each of which lets one more worker compute shards of a job until none is left.

They are made when the shared job is claimed, and cancelled when it is paused or ends (`service.lifecycle`); then those
that were cancelled share it again.
"""

from collections.abc import Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from service import lifecycle
from service.db import ids
from service.db.kinds import EMBED_SHARDS
from service.db.models import Job, JobEvent
from service.db.session import clock
from service.db.statuses import TERMINAL, JobStatus
from service.embedding import shards

_REPEATABLE = (JobStatus.FAILED, JobStatus.CANCELLED)


def add_missing(session: Session, job: Job) -> int:
    """Queue as many jobs as the shared one allows workers beside its own, but not more than there are open shards.

    Returns their number. The caller has locked the shared job's row.
    """
    running = select(func.count()).where(
        Job.parent_id == job.id, Job.kind == EMBED_SHARDS, Job.status.not_in((*TERMINAL, JobStatus.CANCELLING))
    )
    allowed = min(int(job.config["workers"]), shards.count_open(session, job.id)) - 1
    missing = max(0, allowed - int(session.execute(running).scalar_one()))
    cancelled = (Job.parent_id == job.id, Job.kind == EMBED_SHARDS, Job.status.in_(_REPEATABLE))
    locked = select(Job).where(*cancelled).order_by(Job.id).limit(missing).with_for_update(key_share=True)
    again = session.scalars(locked.execution_options(populate_existing=True)).all()
    for sharer in again:
        sharer.priority, sharer.progress = job.priority, None
        lifecycle.retry(session, sharer, None, f"Shares {job.id} again.")
    for _ in range(missing - len(again)):
        lifecycle.insert(session, _build(job, clock(session)), f"Waits for a worker, to share {job.id}.")
    return missing


def set_priority(session: Session, job: Job) -> None:
    """Give the queued jobs that share this one its priority. The caller has locked the shared job's row."""
    queued = (Job.parent_id == job.id, Job.kind == EMBED_SHARDS, Job.status == JobStatus.QUEUED)
    session.execute(update(Job).where(*queued).values(priority=job.priority))


def mark_freed(session: Session, job_ids: Sequence[str], time: float) -> None:
    """Note that the files of those that share these jobs may be unused: rows of the jobs referred to them."""
    of_jobs = (Job.parent_id.in_(job_ids), Job.kind == EMBED_SHARDS)
    session.execute(update(Job).where(*of_jobs).values(freed_at=time))


def delete_events(session: Session, job: Job) -> None:
    """Delete the events of those that share the job. Their rows stay, by which the keeper knows their folders."""
    of_job = select(Job.id).where(Job.parent_id == job.id, Job.kind == EMBED_SHARDS)
    session.execute(delete(JobEvent).where(JobEvent.job_id.in_(of_job)))


def _build(job: Job, created_at: float) -> Job:
    return Job(
        id=ids.new("job"),
        tenant_id=job.tenant_id,
        kind=EMBED_SHARDS,
        queue=job.queue,
        dataset_id=job.dataset_id,
        model_id=job.model_id,
        parent_id=job.id,
        config={},
        user_metadata={},
        priority=job.priority,
        status=JobStatus.QUEUED,
        created_at=created_at,
    )
