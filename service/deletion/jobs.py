"""Deletion of a job that has ended, unless something needs it."""

from collections.abc import Iterator

from sqlalchemy import and_, or_, select
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from service import jobs
from service.db.models import Job, JobEvent, Model, Sweep, VectorIndex
from service.db.session import clock
from service.db.statuses import TERMINAL, JobStatus
from service.deletion import results
from service.deletion.uses import describe, find_indexes, find_jobs, find_sweeps
from service.embedding import sharers
from service.errors import JobInUse, JobNotEnded
from ssl_core.errors import Fault


def delete(session: Session, tenant_id: str, job_id: str) -> None:
    """Delete the job with its events, checkpoints, artifacts and metrics; the keeper removes files and points.

    Its row stays without its content: jobs that refer to it still show its id. Raises JobNotFound; JobNotEnded;
    JobInUse while there is the model that it has made, a job or a sweep that waits for it, or an index being built
    from it; while the sweep that it is a trial of has not ended.
    """
    job = jobs.lock(session, tenant_id, job_id)
    if job.status not in TERMINAL:
        detail = f"The job is {job.status}; cancel it first."
        raise JobNotEnded(detail, errors=[Fault(pointer=f"/jobs/{job.id}", code=job.status, detail=detail)])
    if used_by := [*_find_uses(session, job)]:
        raise JobInUse(describe(used_by), errors=used_by)
    results.delete(session, job)
    session.execute(delete_from(JobEvent).where(JobEvent.job_id == job.id))  # `lifecycle.MAX_EVENTS`, and its statuses
    sharers.delete_events(session, job)
    job.name = job.status_detail = job.error = job.worker = None
    job.config, job.user_metadata = {}, {}
    job.deleted_at = clock(session)
    session.flush()


def _find_uses(session: Session, job: Job) -> Iterator[Fault]:
    if job.status == JobStatus.SUCCEEDED and job.made_model_id is not None:
        query = select(Model.id).where(Model.id == job.made_model_id, Model.deleted_at.is_(None))
        for model_id in session.scalars(query):
            detail = f"It has made {model_id}; delete the model first."
            yield Fault(pointer=f"/models/{model_id}", code="model", detail=detail)
    yield from find_jobs(session, Job.parent_id == job.id)
    yield from find_sweeps(session, or_(Sweep.parent_id == job.id, Sweep.id == job.sweep_id))
    yield from find_indexes(session, and_(VectorIndex.tenant_id == job.tenant_id, VectorIndex.job_id == job.id))
