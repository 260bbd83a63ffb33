"""Routes of /health (liveness, readiness) and /metrics (Prometheus)."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from itertools import chain

from anyio import CapacityLimiter, fail_after
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from api import prometheus, schemas
from api.deps import ReadCaller
from api.prometheus import GaugeFamily
from api.responses import JSONResponse
from service import workers
from service.db import counts
from service.db.session import Database
from service.errors import NotReady
from service.settings import Settings
from service.storage import Storage
from ssl_core.errors import Fault

router = APIRouter(tags=["health"])
_PROBE_BYTES = 4096  # one block: an empty file can be written to a full disk
_PROBE_SECONDS = 2
_MAX_PROBES = 4  # of one dependency at a time
_log = logging.getLogger(__name__)


@router.get("/health/live", response_model=schemas.Health, summary="Liveness")
async def live() -> JSONResponse:
    return JSONResponse({"status": "live"})


@router.get("/health/ready", response_model=schemas.Health, summary="Readiness")
async def ready(request: Request) -> JSONResponse:
    """503 when the database, the storage or a recently seen worker is missing; `errors` names which.

    A dependency that has not answered within 2 seconds is missing. A server that is stopping is not ready either.
    """
    state = request.app.state
    if state.drain.has_begun:
        detail = "This server is stopping."
        raise NotReady(detail, errors=[Fault(pointer="api", code="stopping", detail=detail)], retry_after=5)
    found = await asyncio.gather(
        _probe("database", partial(_check_database, state.database, state.settings), state.probes),
        _probe("storage", partial(_check_storage, state.storage), state.probes),
    )
    if faults := list(chain(*found)):
        raise NotReady(" ".join(fault["detail"] for fault in faults), errors=faults, retry_after=5)
    return JSONResponse({"status": "ready"})


async def _probe(name: str, check: Callable[[], list[Fault]], probes: dict[str, CapacityLimiter]) -> list[Fault]:
    """Return the faults that `check` finds in a thread, or one fault if it does not answer in time.

    The thread is then abandoned. The limiter of each dependency keeps those that hang from taking all threads.
    """
    limiter = probes.setdefault(name, CapacityLimiter(_MAX_PROBES))
    try:
        with fail_after(_PROBE_SECONDS):
            return await run_sync(check, abandon_on_cancel=True, limiter=limiter)
    except TimeoutError:
        detail = f"The {name} has not answered within {_PROBE_SECONDS} seconds."
        return [Fault(pointer=name, code=f"{name}_away", detail=detail)]


@router.get("/metrics", response_class=Response, summary="Prometheus metrics")
def figures(request: Request, caller: ReadCaller) -> Response:
    """The owner's jobs and datasets. For an operator's key those of all, workers, and the requests of this process."""
    state = request.app.state
    with caller.reading() as unit:
        if unit.role == "operator":
            found = counts.count_all(unit.session, state.settings.worker_seen_seconds)
            text = state.request_metrics.render() + prometheus.render_gauges(_build_gauges(found))
        else:
            text = prometheus.render_gauges(_build_gauges(counts.count_of(unit.session, unit.tenant_id)))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _check_database(database: Database, settings: Settings) -> list[Fault]:
    try:
        with database.reading() as session:
            seen = workers.list_recent(session, settings.worker_seen_seconds)
    except SQLAlchemyError as error:
        _log.warning("The database does not answer: %s", error)
        return [Fault(pointer="database", code="database_away", detail="The database does not answer.")]
    if seen:
        return []
    detail = f"No worker was seen in the last {settings.worker_seen_seconds:g} seconds."
    return [Fault(pointer="worker", code="no_worker", detail=detail)]


def _check_storage(storage: Storage) -> list[Fault]:
    try:
        probe = storage.new_upload()
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return [
            Fault(pointer="storage", code="storage_away", detail=f"The storage cannot be written: {error.strerror}.")
        ]
    return []


def _build_gauges(found: counts.Counts) -> list[GaugeFamily]:
    return [
        ("jobs", "Jobs.", ("kind", "status"), list(found.jobs.items())),
        ("datasets", "Datasets that are not deleted.", ("status",), [((k,), n) for k, n in found.datasets.items()]),
        ("queue_depth", "Queued jobs.", ("queue",), [((k,), n) for k, n in found.queue_depths.items()]),
        (
            "queue_oldest_seconds",
            "Age of the oldest queued job.",
            ("queue",),
            [((k,), n) for k, n in found.queue_ages.items()],
        ),
        ("workers", "Workers seen recently.", ("queue",), [((k,), n) for k, n in found.workers.items()]),
    ]
