"""Control of a sweep: pause, resume, cancel and delete it, with the jobs of its trials.

The sweep's row is locked first, then those of its jobs.
"""

from collections.abc import Sequence

from sqlalchemy import delete as delete_from
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import jobs, lifecycle, steering
from service.db.models import Job, Sweep, Trial
from service.db.session import clock
from service.db.statuses import ACTIVE, TERMINAL, JobStatus, SweepStatus
from service.errors import Error, JobHasEnded, SweepHasEnded
from service.sweeps import progress, registry


def pause(session: Session, tenant_id: str, sweep_id: str) -> Sweep:
    """Pause the sweep and the jobs of its trials. Raises SweepNotFound; SweepHasEnded."""
    sweep = _lock_active(session, tenant_id, sweep_id)
    if sweep.status == SweepStatus.RUNNING:
        sweep.status, sweep.status_detail = SweepStatus.PAUSED, "Paused."
        for job in _lock_unfinished(session, sweep):
            if job.status != JobStatus.CANCELLING:
                lifecycle.pause(session, job)
    session.flush()
    return sweep


def resume(session: Session, tenant_id: str, sweep_id: str) -> Sweep:
    """Resume the sweep and the jobs of its trials. Raises SweepNotFound; SweepHasEnded."""
    sweep = _lock_active(session, tenant_id, sweep_id)
    if sweep.status == SweepStatus.PAUSED:
        sweep.status, sweep.status_detail = SweepStatus.RUNNING, "Resumed."
        query = select(Job.id).where(Job.sweep_id == sweep.id, Job.status.in_((JobStatus.PAUSED, JobStatus.PAUSING)))
        for job_id in session.scalars(query.order_by(Job.id)).all():
            try:
                steering.resume(session, tenant_id, job_id)
            except JobHasEnded:
                continue
            except Error as error:  # the job that was to make its model has made none, or the model was deleted
                job = jobs.lock(session, tenant_id, job_id)
                lifecycle.end(
                    session, job, JobStatus.FAILED, error.detail, {"code": error.code, "detail": error.detail}
                )
    session.flush()
    return sweep


def cancel(session: Session, tenant_id: str, sweep_id: str) -> Sweep:
    """Cancel the sweep and the jobs of its trials; without effect on one that has ended. Raises SweepNotFound."""
    sweep = registry.lock(session, tenant_id, sweep_id)
    if sweep.status in ACTIVE:
        progress.note_ends(session, sweep)
        sweep.status, sweep.status_detail, sweep.finished_at = SweepStatus.CANCELLED, "Cancelled.", clock(session)
        for job in _lock_unfinished(session, sweep):
            lifecycle.cancel(session, job)
    session.flush()
    return sweep


def delete(session: Session, tenant_id: str, sweep_id: str) -> None:
    """Delete the sweep with its trials; their jobs stay, but those that have not ended are cancelled.

    Raises SweepNotFound.
    """
    sweep = cancel(session, tenant_id, sweep_id)
    session.execute(delete_from(Trial).where(Trial.sweep_id == sweep.id))
    sweep.name = sweep.error = sweep.pruner = None
    sweep.config, sweep.space, sweep.user_metadata, sweep.status_detail = {}, {}, {}, ""
    sweep.deleted_at = clock(session)
    session.flush()


def _lock_active(session: Session, tenant_id: str, sweep_id: str) -> Sweep:
    sweep = registry.lock(session, tenant_id, sweep_id)
    if sweep.status not in ACTIVE:
        raise SweepHasEnded(f"The sweep is {sweep.status}.")
    return sweep


def _lock_unfinished(session: Session, sweep: Sweep) -> Sequence[Job]:
    query = select(Job).where(Job.sweep_id == sweep.id, Job.status.not_in(TERMINAL)).order_by(Job.id)
    return session.scalars(query.with_for_update(key_share=True).execution_options(populate_existing=True)).all()
