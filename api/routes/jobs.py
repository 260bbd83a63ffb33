"""Jobs over HTTP: asking for a run, looking at it, stopping it."""

import difflib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ValidationError

from api import responses, schemas, serializers
from api.deps import Caller, StorageDep, Unit
from api.idempotency import Idempotent, Made
from api.json_body import JsonRoute
from api.responses import JSONResponse
from service import jobs
from service.errors import ArtifactNotFound, InvalidConfig, UnknownKind
from ssl_core import config as run_config
from ssl_core.config import KINDS, RunConfig
from ssl_core.errors import Fault

router = APIRouter(tags=["jobs"], route_class=JsonRoute)
JobId = Annotated[str, Path(description="A `job_` id.", examples=["job_01k"])]
After = Annotated[str | None, Query(max_length=64, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("/jobs", status_code=202, response_model=schemas.Job, summary="Ask for a run")
def submit(body: schemas.NewJob, caller: Caller, once: Idempotent) -> JSONResponse:
    """Queue a run, or let it wait for the job that makes its model. The answer shows where to look."""
    config = _config(body.kind, body.config)

    def make(unit: Unit) -> Made:
        fields = body.model_dump(include={"model", "name", "priority", "metadata"})
        job = jobs.submit(unit.session, unit.tenant_id, body.dataset, config, **fields)
        unit.queues.add(job.queue)
        return Made(serializers.job(job, jobs.transitions(unit.session, job.id)), f"/jobs/{job.id}")

    with caller.writing() as unit:
        return once(unit, body.model_dump(), make, 202)


@router.get("/jobs", response_model=schemas.JobList, summary="List jobs, newest first")
def list_(
    caller: Caller,
    after: After = None,
    limit: Limit = 20,
    status: Annotated[str | None, Query(max_length=64)] = None,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    dataset: Annotated[str | None, Query(max_length=64)] = None,
) -> JSONResponse:
    with caller.reading() as unit:
        found = jobs.list_(unit.session, unit.tenant_id, after, limit, status=status, kind=kind, dataset=dataset)
        histories = jobs.transitions_by_job(unit.session, [job.id for job in found.items])
        return responses.page(
            [serializers.job(job, histories[job.id]) for job in found.items], found.has_more, found.next
        )


@router.get("/jobs/{job_id}", response_model=schemas.Job, summary="Show a job")
async def show(job_id: JobId, caller: Caller) -> JSONResponse:
    def read(unit: Unit) -> JSONResponse:
        job = jobs.get(unit.session, unit.tenant_id, job_id)
        history, beside = jobs.transitions(unit.session, job.id), jobs.supervised_baselines(unit.session, job)
        return JSONResponse(serializers.job(job, history, beside))

    return await caller.briefly(read)


@router.post("/jobs/{job_id}/cancel", response_model=schemas.Job, summary="Stop a job")
def cancel(job_id: JobId, caller: Caller) -> JSONResponse:
    """Ask a job to end; it keeps its checkpoint. Asking again, or for one that has ended, changes nothing."""
    with caller.writing() as unit:
        job = jobs.cancel(unit.session, unit.tenant_id, job_id)
        return JSONResponse(serializers.job(job, jobs.transitions(unit.session, job.id)))


@router.get("/jobs/{job_id}/events", response_model=schemas.EventList, summary="What happened to a job, oldest first")
def events(
    job_id: JobId,
    caller: Caller,
    after: Annotated[int, Query(ge=0, lt=2**31, description="`next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> JSONResponse:
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, job_id)
        found = jobs.events(unit.session, job.id, after, limit)
        return responses.page([serializers.event(event) for event in found.items], found.has_more, found.last)


@router.get("/jobs/{job_id}/checkpoints", response_model=schemas.CheckpointList, summary="List a job's checkpoints")
def checkpoints(job_id: JobId, caller: Caller) -> JSONResponse:
    """All that are kept, the furthest first."""
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, job_id)
        return responses.page(
            [serializers.checkpoint(row) for row in jobs.checkpoints(unit.session, job.id)], False, None
        )


@router.get("/jobs/{job_id}/artifacts", response_model=schemas.ArtifactList, summary="List the files that a job left")
def artifacts(job_id: JobId, caller: Caller) -> JSONResponse:
    """Pictures, coordinates, curves for TensorBoard; by name."""
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, job_id)
        return responses.page([serializers.artifact(row) for row in jobs.artifacts(unit.session, job.id)], False, None)


@router.get("/jobs/{job_id}/artifacts/{name}", response_class=Response, summary="Fetch a file that a job left")
def artifact(request: Request, job_id: JobId, name: str, caller: Caller, storage: StorageDep) -> Response:
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, job_id)
        found = jobs.artifact(unit.session, job.id, name)
    path = storage.absolute(found.path)
    if not path.is_file():
        raise ArtifactNotFound("The artifact's file is gone.")
    return responses.file(request, path, found.media_type, found.name, found.sha256)


def _config(kind: str, config: dict[str, Any]) -> RunConfig:
    """Return the config, validated. Raises UnknownKind and InvalidConfig, with the nearest name that would do."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, list(KINDS), n=1)
        detail = f"There is no kind `{kind}`; " + (f"did you mean `{near[0]}`?" if near else f"try {', '.join(KINDS)}.")
        raise UnknownKind(detail, errors=[Fault(pointer="/kind", code="unknown_kind", detail=detail)])
    try:
        return run_config.parse(config, kind)
    except ValidationError as error:
        faults = [
            Fault(pointer="/config" + fault["pointer"], code=fault["code"], detail=fault["detail"])
            for fault in run_config.faults(error, kind)
        ]
        sentence = "; ".join(f"{fault['pointer']}: {fault['detail']}" for fault in faults[:3])
        raise InvalidConfig(sentence, errors=faults) from error
