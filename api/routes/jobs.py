"""Routes of /jobs: submit, list, show and delete jobs; their events, checkpoints and artifacts."""

import difflib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import Connection

from api import downloads, responses, schemas, serializers
from api.deps import ReadCaller, SettingsDep, StorageDep, TrainCaller, UnitOfWork
from api.downloads import Recorded
from api.idempotency import Created, Idempotent
from api.json_body import JsonRoute
from api.parameters import filters
from api.parameters.cursor import After
from api.responses import JSONResponse
from service import jobs
from service.db.forecast import Forecast, forecast
from service.db.kinds import IMPORT
from service.db.statuses import JobStatus
from service.deletion import jobs as deletion
from service.errors import ArtifactNotFound, InvalidConfig, UnknownKind
from service.jobs import ShownJob
from service.keys import Identity
from service.quotas import checks
from ssl_core import config as run_config
from ssl_core.config import KINDS, RunConfig
from ssl_core.config.base import Kind
from ssl_core.errors import Fault

router = APIRouter(tags=["jobs"], route_class=JsonRoute)
JobId = Annotated[str, Path(description="A `job_` id.", examples=["job_01k"])]
Limit = Annotated[int, Query(ge=1, le=100)]
_LISTED_KINDS = (*KINDS, IMPORT)


@router.post("/jobs", status_code=202, response_model=schemas.Job, summary="Submit a job")
def submit(body: schemas.NewJob, caller: TrainCaller, respond: Idempotent, settings: SettingsDep) -> JSONResponse:
    """Queue a job, or let it wait for the job that makes its model. `urls` in the response are its metrics and more."""
    config = parse_config(body.kind, body.config)

    def submit_job(unit: UnitOfWork) -> Created:
        checks.check_jobs(unit.session, unit.tenant_id, "train", settings)
        checks.check_bytes(unit.session, unit.tenant_id, settings)
        fields = body.model_dump(include={"model", "name", "priority", "metadata", "max_runtime"})
        job = jobs.submit(unit.session, unit.tenant_id, body.dataset, config, **fields)
        unit.queues.add(job.queue)
        unit.record("job.submit", job.id, kind=job.kind, dataset=job.dataset_id, model=body.model)
        return Created(serializers.job(job, jobs.transitions(unit.session, job.id)), f"/jobs/{job.id}")

    with caller.writing() as unit:
        return respond(unit, body.model_dump(), submit_job, 202)


@router.get("/jobs", response_model=schemas.JobList, summary="List jobs, newest first")
def list_(
    caller: ReadCaller,
    after: After = None,
    limit: Limit = 20,
    status: Annotated[str | None, filters.one_of(JobStatus)] = None,
    kind: Annotated[str | None, filters.one_of(_LISTED_KINDS)] = None,
    dataset: Annotated[str | None, Query(max_length=64)] = None,
    sweep: Annotated[str | None, Query(max_length=64, description="Trials of this sweep.")] = None,
) -> JSONResponse:
    filters.check("status", status, [*JobStatus])
    filters.check("kind", kind, _LISTED_KINDS)
    with caller.reading() as unit:
        wanted = {"status": status, "kind": kind, "dataset": dataset, "sweep": sweep}
        page = jobs.list_(unit.session, unit.tenant_id, after, limit, **wanted)
        transitions = jobs.transitions_by_job(unit.session, [job.id for job in page.items])
        return responses.page(
            [serializers.job(job, transitions[job.id]) for job in page.items], page.has_more, page.next
        )


@router.get("/jobs/{job_id}", response_model=schemas.Job, summary="Show a job")
async def show(job_id: JobId, caller: ReadCaller, settings: SettingsDep) -> JSONResponse:
    def read(connection: Connection, identity: Identity) -> tuple[ShownJob, Any, Any]:
        job = jobs.show(connection, identity.tenant_id, job_id)
        return job, jobs.transitions(connection, job.id), jobs.supervised_baselines(connection, job)

    def read_place(connection: Connection, identity: Identity) -> Forecast | None:
        return forecast(connection, job, settings.worker_seen_seconds)

    job, transitions, baselines = await caller.read(read)
    place = await caller.read(read_place, is_short=False) if job.status == JobStatus.QUEUED else None
    return JSONResponse(serializers.job(job, transitions, baselines, place))


@router.delete("/jobs/{job_id}", status_code=204, response_class=Response, summary="Delete a job")
def delete(job_id: JobId, caller: TrainCaller) -> Response:
    """Delete a job that has ended, with its events, checkpoints, metrics and artifacts; its files are removed within
    minutes. Refused while there is the model that it has made, or a job that waits for it: `errors` names them.
    """
    with caller.writing() as unit:
        deletion.delete(unit.session, unit.tenant_id, job_id)
        unit.record("job.delete", job_id)
    return Response(status_code=204)


@router.get("/jobs/{job_id}/events", response_model=schemas.EventList, summary="List a job's events, oldest first")
def events(
    job_id: JobId,
    caller: ReadCaller,
    after: Annotated[int, Query(ge=0, lt=2**31, description="`next` of the previous page.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> JSONResponse:
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, job_id)
        found = jobs.events(unit.session, job.id, after, limit)
        return responses.page([serializers.event(event) for event in found.items], found.has_more, found.last)


@router.get("/jobs/{job_id}/checkpoints", response_model=schemas.CheckpointList, summary="List a job's checkpoints")
def checkpoints(job_id: JobId, caller: ReadCaller) -> JSONResponse:
    """The highest step first."""
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, job_id)
        return responses.page(
            [serializers.checkpoint(row) for row in jobs.checkpoints(unit.session, job.id)], False, None
        )


@router.get("/jobs/{job_id}/artifacts", response_model=schemas.ArtifactList, summary="List a job's artifacts")
def artifacts(job_id: JobId, caller: ReadCaller) -> JSONResponse:
    """Figures, coordinates and TensorBoard files, sorted by name."""
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, job_id)
        return responses.page([serializers.artifact(row) for row in jobs.artifacts(unit.session, job.id)], False, None)


@router.head("/jobs/{job_id}/artifacts/{name}", include_in_schema=False)
@router.get("/jobs/{job_id}/artifacts/{name}", response_class=Response, summary="Download an artifact")
def artifact(request: Request, job_id: JobId, name: str, caller: ReadCaller, storage: StorageDep) -> Response:
    """HEAD and range requests are supported; the ETag is the file's SHA-256."""
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, job_id)
        found = jobs.artifact(unit.session, job.id, name)
        actor = unit.actor
    path = storage.absolute(found.path)
    if not path.is_file():
        raise ArtifactNotFound("The file of the artifact is missing.")
    recorded = Recorded(found.sha256, found.size_bytes)
    response = downloads.file(request, path, found.media_type, found.name, recorded)
    if request.method == "GET":
        caller.uses.add_download(actor, "artifact.download", job.id, name=found.name)
    return response


def find_kind(kind: str) -> type[Kind]:
    """Return the class of the kind's configs. Raises UnknownKind, with the closest valid name."""
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, list(KINDS), n=1)
        detail = f"There is no kind `{kind}`; " + (
            f"did you mean `{close[0]}`?" if close else f"there are {', '.join(KINDS)}."
        )
        raise UnknownKind(detail, errors=[Fault(pointer="/kind", code="unknown_kind", detail=detail)])
    return KINDS[kind]


def parse_config(kind: str, config: dict[str, Any]) -> RunConfig:
    """Return the validated config. Raises UnknownKind and InvalidConfig, with the closest valid name."""
    find_kind(kind)
    try:
        return run_config.parse(config, kind)
    except ValidationError as error:
        faults = [
            Fault(pointer="/config" + fault["pointer"], code=fault["code"], detail=fault["detail"])
            for fault in run_config.faults(error, kind)
        ]
        sentence = "; ".join(f"{fault['pointer']}: {fault['detail']}" for fault in faults[:3])
        raise InvalidConfig(sentence, errors=faults) from error
