"""Route of /jobs/{job_id}/metrics: thinned columns, or all points in lines, with ETags and long polling."""

import zlib
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from api import schemas
from api.deps import Caller, ReadCaller
from api.job_watcher import JobWatcher
from api.json_body import JsonRoute
from api.parameters import metric_names
from api.responses import CLIENT_CLOSED_REQUEST, JSONResponse, has_current_etag
from api.routes.jobs import JobId
from api.streams import lines
from service import jobs, metrics
from service.db.statuses import TERMINAL
from service.disconnect import ClientDisconnected, cancel_on_disconnect
from service.errors import InvalidRequest
from service.jobs import JobState
from service.keys import Identity
from ssl_core.errors import Fault

router = APIRouter(tags=["metrics"], route_class=JsonRoute)
Format = Literal["json", "ndjson", "csv"]
_MEDIA_TYPES: dict[Format, str] = {"ndjson": lines.NDJSON, "csv": lines.CSV}  # of lines
_ACCEPTED: dict[str, Format] = {"application/json": "json", "*/*": "json", lines.NDJSON: "ndjson", lines.CSV: "csv"}
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {media_type: {"schema": {"type": "string"}} for media_type in _MEDIA_TYPES.values()}}
}


@dataclass(frozen=True, slots=True)
class _Query:
    """The parameters of a request."""

    job_id: str
    names: tuple[str, ...] | None
    after: int
    max_points: int
    format: Format

    def poll(self, connection: Connection, identity: Identity) -> tuple[JobState, str]:
        """Return the state of the job, and the id of the key."""
        return jobs.poll(connection, identity.tenant_id, self.job_id), identity.key_id

    def etag(self, last_point: int) -> str:
        """Return the ETag. Points are append-only, so the query and the last `seq` determine the response."""
        parameters = (self.names, self.after, self.max_points, self.format)
        return f'"{last_point:x}-{zlib.crc32(repr(parameters).encode()):08x}"'


@router.get(
    "/jobs/{job_id}/metrics", response_model=schemas.Metrics, responses=_LINES, summary="Metrics of a job, in columns"
)
async def show(
    request: Request,
    job_id: JobId,
    caller: ReadCaller,
    names: metric_names.Names = None,
    after: Annotated[int, Query(ge=0, lt=2**63, description="`last` of an earlier response.")] = 0,
    max_points: Annotated[
        int, Query(ge=2, le=metrics.MAX_POINTS, description="Of each series; the first and the last point are kept.")
    ] = metrics.DEFAULT_POINTS,
    wait: Annotated[
        float, Query(ge=0, allow_inf_nan=False, description="Seconds to wait for new points, if there are none.")
    ] = 0,
    format: Annotated[
        Format | None, Query(description="Instead of the header Accept. NDJSON and CSV have all points, a line each.")
    ] = None,
) -> Response:
    """Points after `after`. Send the ETag back as If-None-Match: 304 when nothing is new.

    NDJSON lines are `{"name", "step", "epoch", "time", "value", "seq"}`; CSV has the columns
    `name,step,epoch,time,value`.
    """
    query = _Query(job_id, metric_names.split(names), after, max_points, format or _negotiate(request))
    state, key_id = await caller.read(query.poll)
    if query.format != "json" and "max_points" in request.query_params:
        raise _refuse_max_points()
    seconds = min(wait, request.app.state.settings.long_poll_seconds)
    if seconds > 0 and not _has_news(request, query, state):
        try:
            state = await _wait(request, query, key_id, seconds) or state
        except ClientDisconnected:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
    if has_current_etag(request, etag := query.etag(state.last_point)):
        return Response(status_code=304, headers=_build_headers(etag))
    if query.format == "json":
        return await run_sync(_read_points, caller, query)
    return await run_sync(_open_lines, request, caller, query)


def _negotiate(request: Request) -> Format:
    """Return the first format that the header Accept names, without regard to weights."""
    accepted = (item.partition(";")[0].strip().lower() for item in request.headers.get("accept", "").split(","))
    return next((_ACCEPTED[media_type] for media_type in accepted if media_type in _ACCEPTED), "json")


def _refuse_max_points() -> InvalidRequest:
    detail = "max_points is for `format=json`; NDJSON and CSV have all points."
    return InvalidRequest(detail, errors=[Fault(pointer="max_points", code="unused", detail=detail)])


def _has_news(request: Request, query: _Query, state: JobState) -> bool:
    """Whether there is something new, or the job has ended."""
    is_known = state.last_point <= query.after or has_current_etag(request, query.etag(state.last_point))
    return not is_known or state.status in TERMINAL


async def _wait(request: Request, query: _Query, key_id: str, seconds: float) -> JobState | None:
    watcher: JobWatcher = request.app.state.job_watcher
    with watcher.slot(key_id):
        waiting = watcher.wait(key_id, query.job_id, partial(_has_news, request, query), seconds)
        return await cancel_on_disconnect(waiting, request.receive)


def _read_points(caller: Caller, query: _Query) -> JSONResponse:
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, query.job_id)
        metric_names.check(unit.session, job.id, query.names)
        columns = metrics.query(unit.session, job, query.names, query.after, query.max_points)
        return JSONResponse(columns, headers=_build_headers(query.etag(job.last_point)))


def _open_lines(request: Request, caller: Caller, query: _Query) -> StreamingResponse:
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, query.job_id)
        metric_names.check(unit.session, job.id, query.names)
        last = job.last_point
    media_type = _MEDIA_TYPES[query.format]
    content = lines.write_lines(caller.database, query.job_id, query.names, query.after, last, media_type)
    return StreamingResponse(content, headers=_build_headers(query.etag(last)), media_type=media_type)


def _build_headers(etag: str) -> dict[str, str]:
    return {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Accept"}
