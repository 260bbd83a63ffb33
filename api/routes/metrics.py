"""Route of /jobs/{job_id}/metrics: thinned columns, with ETags and long polling."""

import time
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from pydantic import WithJsonSchema
from sqlalchemy import Connection

from api import schemas
from api.deps import Caller, ReadCaller
from api.job_watcher import JobWatcher, State
from api.json_body import JsonRoute
from api.parameters import filters
from api.responses import CLIENT_CLOSED_REQUEST, JSONResponse, has_current_etag
from api.routes.jobs import JobId
from service import jobs, metrics
from service.db.statuses import TERMINAL
from service.disconnect import ClientDisconnected, cancel_on_disconnect
from service.keys import Identity
from ssl_core.config import metric_names

_KNOWN = metric_names.list_known()
router = APIRouter(tags=["metrics"], route_class=JsonRoute)

_ONE = f"(?:{'|'.join(_KNOWN)})"
_Name = Annotated[str, WithJsonSchema({"type": "string", "pattern": rf"^ *(?:{_ONE} *(?:, *{_ONE} *)*)?$"})]
Names = Annotated[
    list[_Name] | None,
    Query(
        max_length=100, description="Names of series, with commas between them, or repeated.", examples=["train/loss"]
    ),
]


@dataclass(frozen=True, slots=True)
class _Query:
    """The parameters of a request."""

    job_id: str
    names: tuple[str, ...] | None
    after: int
    max_points: int

    def poll(self, connection: Connection, identity: Identity) -> tuple[State, str]:
        """Return the state of the job, and the id of the key."""
        return jobs.poll(connection, identity.tenant_id, self.job_id), identity.key_id

    def etag(self, last_point: int) -> str:
        """Return the ETag. Points are append-only, so the query and the last `seq` determine the response."""
        return f'"{last_point:x}-{zlib.crc32(repr((self.names, self.after, self.max_points)).encode()):08x}"'


@router.get("/jobs/{job_id}/metrics", response_model=schemas.Metrics, summary="Metrics of a job, in columns")
async def show(
    request: Request,
    job_id: JobId,
    caller: ReadCaller,
    names: Names = None,
    after: Annotated[int, Query(ge=0, lt=2**63, description="`last` of an earlier response.")] = 0,
    max_points: Annotated[
        int, Query(ge=2, le=metrics.MAX_POINTS, description="Of each series; the first and the last point are kept.")
    ] = metrics.DEFAULT_POINTS,
    wait: Annotated[
        float, Query(ge=0, allow_inf_nan=False, description="Seconds to wait for new points, if there are none.")
    ] = 0,
) -> Response:
    """Points after `after`. Send the ETag back as If-None-Match: 304 when nothing is new."""
    query = _Query(job_id, _split_names(names), after, max_points)
    state, key_id = await caller.read(query.poll)
    seconds = min(wait, request.app.state.settings.long_poll_seconds)
    if seconds > 0 and _has_nothing_new(request, query, state) and state[1] not in TERMINAL:
        try:
            with request.app.state.job_watcher.slot(key_id):
                state = await _wait(request, query, caller, state, seconds)
        except ClientDisconnected:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
    if has_current_etag(request, etag := query.etag(state[0])):
        return Response(status_code=304, headers=_build_headers(etag))
    return await run_sync(_read_points, caller, query)


def _has_nothing_new(request: Request, query: _Query, state: State) -> bool:
    return state[0] <= query.after or has_current_etag(request, query.etag(state[0]))


async def _wait(request: Request, query: _Query, caller: Caller, state: State, seconds: float) -> State:
    """Return the state after there is something new or the job has ended, for at most `seconds`."""
    watcher: JobWatcher = request.app.state.job_watcher
    until = time.monotonic() + seconds
    while _has_nothing_new(request, query, state) and state[1] not in TERMINAL:
        waiting = watcher.wait(query.job_id, state, until - time.monotonic())
        if not await cancel_on_disconnect(waiting, partial(_receive_disconnect, request)):
            break
        state, _ = await caller.read(query.poll)
    return state


async def _receive_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _read_points(caller: Caller, query: _Query) -> JSONResponse:
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, query.job_id)
        if unknown := set(query.names or ()).difference(_KNOWN):
            known = [*_KNOWN, *metrics.list_names(unit.session, job)]  # those of earlier versions too
            for name in sorted(unknown):
                filters.check("names", name, known, "metric")
        columns = metrics.query(unit.session, job, query.names, query.after, query.max_points)
        return JSONResponse(columns, headers=_build_headers(query.etag(job.last_point)))


def _build_headers(etag: str) -> dict[str, str]:
    return {"ETag": etag, "Cache-Control": "private, no-cache"}


def _split_names(names: list[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return tuple(sorted({name.strip() for item in names for name in item.split(",") if name.strip()}))
