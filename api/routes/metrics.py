"""Metrics of a job over HTTP: in columns, thinned, polled cheaply or waited for."""

import asyncio
import time
import zlib
from dataclasses import dataclass
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response

from api import schemas
from api.deps import Bearer, Caller, SettingsDep
from api.json_body import JsonRoute
from api.responses import JSONResponse, unchanged
from api.routes.jobs import JobId
from service import jobs, metrics
from service.db.statuses import TERMINAL

router = APIRouter(tags=["metrics"], route_class=JsonRoute)
POLL_SECONDS = 0.3

Names = Annotated[
    list[str] | None,
    Query(max_length=100, description="Only these; comma-separated, or repeated.", examples=["train/loss"]),
]


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of which job."""

    job_id: str
    names: tuple[str, ...] | None
    after: int
    max_points: int

    def etag(self, last_point: int) -> str:
        """Points are only ever appended, so the number of the last one and the question settle the answer."""
        return f'"{last_point:x}-{zlib.crc32(repr((self.names, self.after, self.max_points)).encode()):08x}"'


@router.get("/jobs/{job_id}/metrics", response_model=schemas.Metrics, summary="Metrics of a job, in columns")
async def show(
    request: Request,
    job_id: JobId,
    caller: Caller,
    config: SettingsDep,
    names: Names = None,
    after: Annotated[int, Query(ge=0, lt=2**63, description="`last` of an earlier answer.")] = 0,
    max_points: Annotated[
        int, Query(ge=2, le=metrics.MAX_POINTS, description="Of each series; the first and the last are kept.")
    ] = metrics.DEFAULT_POINTS,
    wait: Annotated[
        float, Query(ge=0, allow_inf_nan=False, description="Seconds to wait for something new, if there is nothing.")
    ] = 0,
) -> Response:
    """Points after `after`. Send the ETag back as If-None-Match: 304 when nothing is new."""
    asked = _Question(job_id, _split(names), after, max_points)
    until = time.monotonic() + min(wait, config.long_poll_seconds)
    while True:
        last_point, status = await caller.briefly(lambda unit: jobs.poll(unit.session, unit.tenant_id, job_id))
        same = unchanged(request, asked.etag(last_point))
        nothing_new = (same or last_point <= after) and status not in TERMINAL
        if not nothing_new or time.monotonic() >= until or await request.is_disconnected():
            break
        # Until the next look nothing is held: no transaction, no connection, no thread.
        await asyncio.sleep(max(0.0, min(POLL_SECONDS, until - time.monotonic())))
    if same:
        return Response(status_code=304, headers=_headers(asked.etag(last_point)))
    return await run_sync(_points, caller, asked)


def _points(caller: Bearer, asked: _Question) -> JSONResponse:
    with caller.reading() as unit:
        job = jobs.get(unit.session, unit.tenant_id, asked.job_id)
        found = metrics.query(unit.session, job, asked.names, asked.after, asked.max_points)
        return JSONResponse(found, headers=_headers(asked.etag(job.last_point)))


def _headers(etag: str) -> dict[str, str]:
    return {"ETag": etag, "Cache-Control": "private, no-cache"}


def _split(names: list[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return tuple(sorted({name for item in names for name in item.split(",") if name}))
