"""Retention: what jobs and uploads have left is deleted after the days of the settings, and no sooner than asked for.

Nothing of a job that has not ended is: a paused one goes on from its checkpoints. Nor of one of which an
index is being built.
"""

from collections.abc import Sequence
from typing import TypeAlias

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from service import audit, lifecycle
from service.audit import Actor
from service.db.models import Artifact, Checkpoint, Dataset, Job, VectorIndex
from service.db.session import clock, now
from service.db.statuses import TERMINAL, DatasetStatus, JobStatus
from service.deletion.uses import is_building
from service.embedding import sharers
from service.settings import Settings

PART = 500  # jobs or datasets in one transaction, of each setting
DAY_SECONDS = 86_400
_Results: TypeAlias = type[Checkpoint] | type[Artifact]
_JOBS: dict[str, tuple[_Results, tuple[JobStatus, ...]]] = {
    "retention_checkpoint_days": (Checkpoint, (JobStatus.SUCCEEDED,)),
    "retention_failed_checkpoint_days": (Checkpoint, (JobStatus.FAILED, JobStatus.CANCELLED)),
    "retention_artifact_days": (Artifact, TERMINAL),
}


def delete_expired(session: Session, settings: Settings) -> int:
    """Delete what has expired, at most PART of each setting; return the number of jobs and datasets concerned.

    The keeper removes the files. An event of the job, or an entry of the audit trail, names the setting.
    """
    count = 0
    for name, (table, statuses) in _JOBS.items():
        if (days := getattr(settings, name)) is not None:
            count += _delete_results(session, name, table, statuses, days)
    if settings.retention_failed_upload_days is not None:
        count += _delete_failed_uploads(session, settings.retention_failed_upload_days)
    return count


def _delete_results(
    session: Session, setting: str, table: _Results, statuses: tuple[JobStatus, ...], days: float
) -> int:
    query = select(Job).where(
        Job.id.in_(select(table.job_id)), Job.status.in_(statuses), Job.finished_at < now() - days * DAY_SECONDS
    )
    locked = query.where(_is_unread()).order_by(Job.id).limit(PART).with_for_update(skip_locked=True, key_share=True)
    jobs = _keep_unread(session, session.scalars(locked).all())
    session.execute(delete(table).where(table.job_id.in_([job.id for job in jobs])))
    for job in jobs:
        message = f"Its {table.__tablename__} were deleted, {days:g} days after its end."
        lifecycle.append_event(session, job, "info", "expired", message, {"setting": f"TWOVIEWS_{setting.upper()}"})
        job.freed_at = clock(session)
    session.flush()
    sharers.mark_freed(session, [job.id for job in jobs], clock(session))
    return len(jobs)


def _is_unread() -> ColumnElement[bool]:
    return ~select(VectorIndex.id).where(VectorIndex.job_id == Job.id, is_building()).exists()


def _keep_unread(session: Session, jobs: Sequence[Job]) -> list[Job]:
    """Leave out jobs of which an index was created between the reading of their rows and their lock."""
    unread = set(session.scalars(select(Job.id).where(Job.id.in_([job.id for job in jobs]), _is_unread())))
    return [job for job in jobs if job.id in unread]


def _delete_failed_uploads(session: Session, days: float) -> int:
    query = select(Dataset).where(
        Dataset.status == DatasetStatus.FAILED,
        Dataset.deleted_at.is_(None),
        Dataset.created_at < now() - days * DAY_SECONDS,
    )
    locked = query.order_by(Dataset.id).limit(PART).with_for_update(skip_locked=True, key_share=True)
    datasets = session.scalars(locked).all()
    for dataset in datasets:
        dataset.deleted_at = clock(session)
        setting = "TWOVIEWS_RETENTION_FAILED_UPLOAD_DAYS"
        audit.record(session, Actor(dataset.tenant_id), "dataset.delete", dataset.id, setting=setting)
    session.flush()
    return len(datasets)
