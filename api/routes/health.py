"""Health: whether the process lives, whether the service can do its work, and how much of everything there is."""

import logging

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from api import schemas
from api.deps import Caller
from api.prometheus import Looked
from api.responses import JSONResponse
from service import counts, workers
from service.db.session import Database
from service.errors import NotReady
from service.settings import Settings
from service.storage import Storage
from ssl_core.errors import Fault

router = APIRouter(tags=["health"])
_PROBE_BYTES = 4096  # a full disk takes an empty file, and no block
_log = logging.getLogger(__name__)


@router.get("/health/live", response_model=schemas.Health, summary="Does the process answer?")
async def live() -> JSONResponse:
    return JSONResponse({"status": "live"})


@router.get("/health/ready", response_model=schemas.Health, summary="Can the service do its work?")
def ready(request: Request) -> JSONResponse:
    """503 names what is missing: the database, the storage, or a worker seen lately."""
    state = request.app.state
    faults = [*_database(state.database, state.settings), *_storage(state.storage)]
    if faults:
        raise NotReady(" ".join(fault["detail"] for fault in faults), errors=faults, retry_after=5)
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
def figures(request: Request, caller: Caller) -> Response:
    """Of the whole service: sums over all owners, and this process's requests."""
    with caller.reading() as unit:
        counted = counts.count_all(unit.session, request.app.state.settings.worker_seen_seconds)
    return Response(request.app.state.counters.text(_gauges(counted)), media_type=CONTENT_TYPE_LATEST)


def _database(database: Database, settings: Settings) -> list[Fault]:
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


def _storage(storage: Storage) -> list[Fault]:
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


def _gauges(found: counts.Counts) -> list[Looked]:
    return [
        ("jobs", "Jobs.", ("kind", "status"), list(found.jobs.items())),
        ("datasets", "Datasets that are not deleted.", ("status",), [((k,), n) for k, n in found.datasets.items()]),
        ("queue_depth", "Jobs that wait for a worker.", ("queue",), [((k,), n) for k, n in found.queue_depths.items()]),
        (
            "queue_oldest_seconds",
            "Age of the job that has waited longest.",
            ("queue",),
            [((k,), n) for k, n in found.queue_ages.items()],
        ),
        ("workers", "Workers seen lately.", ("queue",), [((k,), n) for k, n in found.workers.items()]),
    ]
