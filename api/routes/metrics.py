"""Metrics of a job over HTTP: in columns, thinned, polled cheaply or waited for."""

import asyncio
import time
import zlib
from dataclasses import dataclass
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response

from api import schemas
from api.answers import Answer, unchanged
from api.bodies import JsonRoute
from api.deps import Caller, Config
from api.routes.jobs import JobId
from service import jobs, metrics
from service.db.models import TERMINAL
from service.db.session import Database

router = APIRouter(tags=["metrics"], route_class=JsonRoute)
POLL_SECONDS = 0.3

Names = Annotated[
    list[str] | None,
    Query(max_length=100, description="Only these; comma-separated, or repeated.", examples=["train/loss"]),
]


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of which job."""

    tenant_id: str
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
    config: Config,
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
    asked = _Question(caller.tenant_id, job_id, _split(names), after, max_points)
    database: Database = request.app.state.database
    if await _is_new(request, database, asked, min(wait, config.long_poll_seconds)):
        return await run_sync(_answer, database, asked)
    return Response(status_code=304, headers={"ETag": request.headers["if-none-match"], "Cache-Control": _CACHE})


_CACHE = "private, no-cache"


async def _is_new(request: Request, database: Database, asked: _Question, seconds: float) -> bool:
    """Wait up to so long for a point that the asker has not seen; tell whether the answer differs from what it holds.

    Between two looks nothing is held: no transaction, no connection, no thread.
    """
    until = time.monotonic() + seconds
    while True:
        last_point, ended = await run_sync(_look, database, asked)
        same = unchanged(request, asked.etag(last_point))
        if not (same or last_point <= asked.after) or ended or time.monotonic() >= until:
            return not same
        if await request.is_disconnected():
            return not same
        await asyncio.sleep(min(POLL_SECONDS, max(0.0, until - time.monotonic())))


def _look(database: Database, asked: _Question) -> tuple[int, bool]:
    """The job's last point, and whether it has ended."""
    with database.reading() as session:
        last_point, status = jobs.standing(session, asked.tenant_id, asked.job_id)
        return last_point, status in TERMINAL


def _answer(database: Database, asked: _Question) -> Answer:
    with database.reading() as session:
        job = jobs.get(session, asked.tenant_id, asked.job_id)
        found = metrics.query(session, job, asked.names, asked.after, asked.max_points)
        return Answer(found, headers={"ETag": asked.etag(job.last_point), "Cache-Control": _CACHE})


def _split(names: list[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return tuple(sorted({name for item in names for name in item.split(",") if name}))
