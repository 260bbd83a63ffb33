"""The reopening of a sweep, one of whose trials is retried."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.models import Job, Sweep, Trial
from service.db.statuses import SweepStatus


def lock(session: Session, job: Job) -> Sweep | None:
    """Return the sweep that the job is a trial of, locked before the job, or None."""
    if job.sweep_id is None:
        return None
    query = select(Sweep).where(Sweep.id == job.sweep_id, Sweep.deleted_at.is_(None))
    query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return session.scalars(query).one_or_none()


def reopen(session: Session, sweep: Sweep, job: Job, *, from_the_start: bool) -> None:
    """Let the keeper wait for the trial again, and no longer take it for one that was stopped early.

    A sweep that was cancelled stays so.
    """
    trial = session.scalars(select(Trial).where(Trial.job_id == job.id)).one()
    trial.ended_at = trial.pruned_at = trial.value = None
    if from_the_start:
        trial.reports, trial.pruner_state = [], None
    if sweep.status in (SweepStatus.SUCCEEDED, SweepStatus.FAILED):
        sweep.status, sweep.status_detail = SweepStatus.RUNNING, f"{job.id} is retried."
        sweep.finished_at = sweep.error = None
    session.flush()
