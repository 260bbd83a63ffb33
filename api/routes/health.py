"""Routes of /health (liveness, readiness) and /metrics (Prometheus)."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from anyio import CapacityLimiter, fail_after
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from sqlalchemy.exc import SQLAlchemyError

from api import schemas
from api.deps import Caller, ReadCaller
from api.encoder.client import EncoderClient
from api.prometheus import families
from api.prometheus.exposition import render
from api.responses import JSONResponse
from service import workers
from service.db.session import Database, clock
from service.errors import EncoderAway, NotReady
from service.keys import Role
from service.monitoring import counts, disk, heartbeats
from service.monitoring.disk import DataFolder
from service.settings import Settings
from service.storage import Storage
from ssl_core.errors import Fault

T = TypeVar("T")
router = APIRouter(tags=["health"])
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
    """Return the faults that `check` finds in a thread, or one fault if it does not answer in time."""
    try:
        return await _run_in_time(name, check, probes)
    except TimeoutError:
        detail = f"The {name} has not answered within {_PROBE_SECONDS} seconds."
        return [Fault(pointer=name, code=f"{name}_away", detail=detail)]


async def _run_in_time(name: str, work: Callable[[], T], probes: dict[str, CapacityLimiter]) -> T:
    """Return `work()`, from a thread. Raises TimeoutError if it does not answer in time; the thread is then abandoned.

    The limiter of each dependency keeps those that hang from taking all threads.
    """
    limiter = probes.setdefault(name, CapacityLimiter(_MAX_PROBES))
    with fail_after(_PROBE_SECONDS):
        return await run_sync(work, abandon_on_cancel=True, limiter=limiter)


@router.get("/metrics", response_class=Response, summary="Prometheus metrics")
async def figures(request: Request, caller: ReadCaller) -> Response:
    """The owner's jobs and datasets. For an operator's key those of all, and the figures of the service.

    Those are workers, keepers, database, data disk and encoder, and the requests of this process. A data disk or an
    encoder that has not answered within 2 seconds is shown as down.
    """
    state = request.app.state
    role, found = await run_sync(_read_database, caller, state.settings)
    if role != "operator":
        return Response(render(found), media_type=CONTENT_TYPE_LATEST)
    folder, health = await asyncio.gather(
        _read_data_folder(state.storage, state.probes), _read_encoder_health(state.encoder)
    )
    found += [*families.of_data_folder(folder), *families.of_encoder(health)]
    text = await run_sync(lambda: state.request_metrics.render() + render(found))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _read_database(caller: Caller, settings: Settings) -> tuple[Role, list[Metric]]:
    """Return the caller's role and the families that are read from the database."""
    with caller.reading() as unit:
        operates = unit.role == "operator"
        totals = counts.count(unit.session, None if operates else unit.tenant_id, settings.lease_seconds)
        found = [*families.of_counts(totals)]
        if operates:
            seen = heartbeats.read(unit.session, settings.worker_seen_seconds)
            started = time.perf_counter()
            clock(unit.session)
            seconds = time.perf_counter() - started
            found += [*families.of_heartbeats(seen), *families.of_database(seconds)]
        return unit.role, found


async def _read_data_folder(storage: Storage, probes: dict[str, CapacityLimiter]) -> DataFolder | None:
    try:
        return await _run_in_time("disk", partial(disk.read, storage.root), probes)
    except (OSError, TimeoutError) as error:
        _log.warning("The data folder does not answer: %s", error)
        return None


async def _read_encoder_health(encoder: EncoderClient) -> dict[str, Any] | None:
    try:
        return await encoder.read_health()
    except EncoderAway:
        return None


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
        storage.probe()
    except OSError as error:
        return [
            Fault(pointer="storage", code="storage_away", detail=f"The storage cannot be written: {error.strerror}.")
        ]
    return []
