"""Retries of trials: the sweep of a trial whose job is retried goes on."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.db.models import Job, Sweep, Trial
from service.db.session import clock
from service.db.statuses import SweepStatus


def lock(session: Session, job: Job) -> Sweep | None:
    """Return the sweep that the job is a trial of, locked before the job, or None."""
    if job.sweep_id is None:
        return None
    query = select(Sweep).where(Sweep.id == job.sweep_id, Sweep.deleted_at.is_(None))
    query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return session.scalars(query).one_or_none()


def reopen(session: Session, sweep: Sweep, job: Job, *, from_the_start: bool) -> None:
    """Let the sweep go on with the trial, which its pruner does not stop again, and with those whose job could not be
    submitted. A sweep that was cancelled stays as it is.
    """
    if sweep.status == SweepStatus.CANCELLED:
        return
    trial = session.scalars(select(Trial).where(Trial.job_id == job.id)).one()
    trial.ended_at = trial.pruned_at = trial.value = None
    trial.retried_at = clock(session)
    if from_the_start:
        trial.reports, trial.pruner_state = [], None
    unsubmitted = update(Trial).where(Trial.sweep_id == sweep.id, Trial.job_id.is_(None), Trial.error.is_not(None))
    session.execute(unsubmitted.values(error=None, ended_at=None).execution_options(synchronize_session=False))
    if sweep.status in (SweepStatus.SUCCEEDED, SweepStatus.FAILED):
        sweep.status, sweep.status_detail = SweepStatus.RUNNING, f"{job.id} is retried."
        sweep.finished_at = sweep.error = None
    session.flush()
