"""Routes of /jobs/{job_id} that steer a job: pause, resume, retry, cancel, clone, and changes of its fields."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from api import schemas, serializers
from api.deps import Caller, SettingsDep, TrainCaller, UnitOfWork
from api.idempotency import Created, Idempotent
from api.json_body import JsonRoute
from api.responses import JSONResponse
from api.routes.jobs import JobId, parse_config
from service import jobs, steering
from service.audit import Action
from service.db.kinds import IMPORT
from service.db.models import Job
from service.db.statuses import TERMINAL
from service.errors import UploadGone
from service.quotas import checks

router = APIRouter(tags=["jobs"], route_class=JsonRoute)


@router.patch("/jobs/{job_id}", response_model=schemas.Job, summary="Change a job's name, priority or metadata")
def change(job_id: JobId, body: schemas.JobChanges, caller: TrainCaller) -> JSONResponse:
    """Fields that are not given stay as they are. The priority can be changed before the job is run."""
    fields = body.model_dump(exclude_unset=True)
    return _steer(caller, "job.change", lambda unit: steering.change(unit.session, unit.tenant_id, job_id, fields))


@router.post("/jobs/{job_id}/cancel", response_model=schemas.Job, summary="Cancel a job")
def cancel(job_id: JobId, caller: TrainCaller) -> JSONResponse:
    """Cancel a job; its checkpoints are kept. Idempotent, and without effect on a job that has ended."""
    return _steer(caller, "job.cancel", lambda unit: steering.cancel(unit.session, unit.tenant_id, job_id))


@router.post("/jobs/{job_id}/pause", response_model=schemas.Job, summary="Pause a job")
def pause(job_id: JobId, caller: TrainCaller) -> JSONResponse:
    """A running job writes a checkpoint and frees its worker; it is not run until it is resumed. Idempotent."""
    return _steer(caller, "job.pause", lambda unit: steering.pause(unit.session, unit.tenant_id, job_id))


@router.post("/jobs/{job_id}/resume", response_model=schemas.Job, summary="Resume a paused job")
def resume(job_id: JobId, caller: TrainCaller) -> JSONResponse:
    """The job goes on from its last checkpoint, to the same weights as without a pause. Idempotent."""
    return _steer(caller, "job.resume", lambda unit: steering.resume(unit.session, unit.tenant_id, job_id))


@router.post("/jobs/{job_id}/retry", response_model=schemas.Job, summary="Retry a job that has failed or was cancelled")
def retry(
    job_id: JobId, caller: TrainCaller, settings: SettingsDep, body: schemas.Retry = schemas.Retry()
) -> JSONResponse:
    """The same job is queued again. Idempotent: without effect on a job that has not ended."""

    def retry_job(unit: UnitOfWork) -> Job:
        if jobs.get(unit.session, unit.tenant_id, job_id).status in TERMINAL:
            checks.check_jobs(unit.session, unit.tenant_id, "train", settings)
            checks.check_bytes(unit.session, unit.tenant_id, settings)
        return steering.retry(unit.session, unit.tenant_id, job_id, body.start)

    return _steer(caller, "job.retry", retry_job)


@router.post("/jobs/{job_id}/clone", status_code=202, response_model=schemas.Job, summary="Submit a job like another")
def clone(
    job_id: JobId,
    caller: TrainCaller,
    respond: Idempotent,
    settings: SettingsDep,
    body: schemas.Clone = schemas.Clone(),
) -> JSONResponse:
    """Queue a new job with the other's kind, dataset, model and config, and the changes in the body."""

    def submit_clone(unit: UnitOfWork) -> Created:
        original = jobs.get(unit.session, unit.tenant_id, job_id)
        if original.kind == IMPORT:
            raise UploadGone
        checks.check_jobs(unit.session, unit.tenant_id, "train", settings)
        checks.check_bytes(unit.session, unit.tenant_id, settings)
        config = parse_config(original.kind, steering.merge_config(original.config, body.config))
        job = jobs.submit(unit.session, unit.tenant_id, config=config, **_merge(original, body))
        unit.queues.add(job.queue)
        unit.record("job.submit", job.id, kind=job.kind, dataset=job.dataset_id, clone_of=original.id)
        return Created(serializers.job(job, jobs.transitions(unit.session, job.id)), f"/jobs/{job.id}")

    with caller.writing() as unit:
        return respond(unit, body.model_dump(exclude_unset=True), submit_clone, 202)


def _merge(original: Job, body: schemas.Clone) -> dict[str, Any]:
    fields = {
        "dataset_id": original.dataset_id,
        "model": original.model_id or original.parent_id,
        "name": original.name,
        "priority": original.priority,
        "metadata": original.user_metadata,
        "max_runtime": original.max_runtime,
    }
    given = body.model_dump(exclude={"config"}, exclude_unset=True)
    return fields | {"dataset_id" if name == "dataset" else name: value for name, value in given.items()}


def _steer(caller: Caller, action: Action, steer: Callable[[UnitOfWork], Job]) -> JSONResponse:
    with caller.writing() as unit:
        job = steer(unit)
        unit.queues.add(job.queue)
        unit.record(action, job.id, status=job.status)
        return JSONResponse(serializers.job(job, jobs.transitions(unit.session, job.id)))
