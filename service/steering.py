"""Steering: what a client does to a job that it has submitted: pause, resume, retry, cancel, and change its fields.

Each is idempotent: a job that is already in the state that is asked for is returned as it is.
"""

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import datasets, jobs, lifecycle, models, text
from service.db.kinds import IMPORT, SHARED_KINDS
from service.db.models import Job
from service.db.statuses import HELD, TERMINAL, JobStatus
from service.deletion import results
from service.embedding import sharers
from service.errors import Error, JobHasEnded, JobHasStarted, JobHasSucceeded, UploadGone
from service.sweeps import reopening
from ssl_core.errors import Fault

Start = Literal["checkpoint", "start"]
_FROM: dict[Start, str] = {"checkpoint": "its last checkpoint", "start": "the start"}


def cancel(session: Session, tenant_id: str, job_id: str) -> Job:
    """Cancel the job; without effect on a job that has ended. Raises JobNotFound."""
    job = jobs.lock(session, tenant_id, job_id)
    lifecycle.cancel(session, job)
    return job


def pause(session: Session, tenant_id: str, job_id: str) -> Job:
    """Pause the job: it keeps its checkpoints, and its worker takes another job.

    Raises JobNotFound; JobHasEnded for a job that has ended or is being cancelled.
    """
    job = jobs.lock(session, tenant_id, job_id)
    _check_unfinished(job)
    lifecycle.pause(session, job)
    return job


def resume(session: Session, tenant_id: str, job_id: str) -> Job:
    """Return a paused job to its queue; it goes on from its last checkpoint, to the bytes of a run without a pause.

    Raises JobNotFound; JobHasEnded for a job that has ended or is being cancelled; ParentFailed when the job that was
    to make its model has made none.
    """
    parent = _lock_parent(session, tenant_id, job_id)
    job = jobs.lock(session, tenant_id, job_id)
    _check_unfinished(job)
    if job.status == JobStatus.PAUSED:
        lifecycle.resume(session, job, _find_awaited(session, tenant_id, job, parent))
    else:
        was_pausing = job.status == JobStatus.PAUSING
        lifecycle.resume(session, job, None)
        if was_pausing and job.kind in SHARED_KINDS:
            sharers.add_missing(session, job)
    return job


def retry(session: Session, tenant_id: str, job_id: str, start: Start = "checkpoint") -> Job:
    """Return a job that has failed or was cancelled to its queue, with its `max_runtime` anew.

    start: from its last checkpoint, or from the start: then its checkpoints, metrics and artifacts are deleted. Jobs
    that have failed because this one made no model have to be retried too. Raises JobNotFound; JobHasSucceeded;
    UploadGone for an import; DatasetNotFound; ModelNotFound; ParentFailed.
    """
    sweep = reopening.lock(session, jobs.get(session, tenant_id, job_id))
    parent = _lock_parent(session, tenant_id, job_id)
    unusable = _lock_dataset(session, tenant_id, jobs.get(session, tenant_id, job_id))
    job = jobs.lock(session, tenant_id, job_id)
    if job.status == JobStatus.SUCCEEDED:
        raise JobHasSucceeded
    if job.status not in TERMINAL:
        return job
    if job.kind == IMPORT:
        raise UploadGone
    if unusable is not None:
        raise unusable
    awaited = _find_awaited(session, tenant_id, job, parent)
    if start == "start":
        _delete_results(session, job)
    lifecycle.retry(session, job, awaited, f"Retried from {_FROM[start]}.")
    if sweep is not None:
        reopening.reopen(session, sweep, job, from_the_start=start == "start")
    return job


def change(session: Session, tenant_id: str, job_id: str, fields: Mapping[str, Any]) -> Job:
    """Set those of `name`, `metadata` and `priority` that are given; the priority only before the job is run.

    Raises JobNotFound, InvalidRequest, InvalidConfig, JobHasStarted.
    """
    job = jobs.lock(session, tenant_id, job_id)
    if "priority" in fields and fields["priority"] != job.priority:
        if job.status in (*HELD, *TERMINAL):
            error = JobHasStarted()
            error.errors = [Fault(pointer="/priority", code=error.code, detail=error.detail)]
            raise error
        job.priority = jobs.check_priority(fields["priority"])
        if job.kind in SHARED_KINDS:
            sharers.set_priority(session, job)
    if "name" in fields:
        job.name = text.check_line(fields["name"], "/name") if fields["name"] is not None else None
    if "metadata" in fields:
        job.user_metadata = text.check_metadata(fields["metadata"])
    session.flush()
    return job


def merge_config(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with the changes, merged as in RFC 7396: null removes a field, which then has its default.

    A section whose `name` changes, such as that of the method, is replaced: its other fields are those of another.
    """
    merged = dict(config)
    for name, value in changes.items():
        old = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping) and value.get("name") in (None, old.get("name")):
            merged[name] = merge_config(old, value)
        else:
            merged[name] = value
    return merged


def _lock_dataset(session: Session, tenant_id: str, job: Job) -> Error | None:
    """Lock the job's dataset against deletion until the commit; return why that is not possible, if it is not."""
    try:
        if job.dataset_id is not None:
            datasets.get_ready(session, tenant_id, job.dataset_id, lock=True)
    except Error as error:
        return error
    return None


def _lock_parent(session: Session, tenant_id: str, job_id: str) -> Job | None:
    """Return the job that makes the job's model, locked before the job itself, so that it does not end meanwhile."""
    parent_id = jobs.get(session, tenant_id, job_id).parent_id
    query = select(Job).where(Job.id == parent_id).with_for_update(read=True)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none() if parent_id else None


def _find_awaited(session: Session, tenant_id: str, job: Job, parent: Job | None) -> Job | None:
    """Return the parent that the job has to wait for; None when its model is there, which becomes its input.

    The model is locked against deletion until the commit.
    """
    if job.model_id is not None:
        models.find_source(session, tenant_id, job.model_id)
    elif parent is not None:
        job.model_id = models.find_source(session, tenant_id, parent.id).model_id
    return parent if job.model_id is None else None


def _check_unfinished(job: Job) -> None:
    if job.status in (*TERMINAL, JobStatus.CANCELLING):
        raise JobHasEnded(f"The job is {job.status}.")


def _delete_results(session: Session, job: Job) -> None:
    results.delete(session, job)
    job.last_point += 1  # what was read with the last one, an ETag or a cursor, is outdated
