"""The FastAPI application; `python -m api` serves it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import create_task_group, move_on_after
from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI

from api import openapi, problems
from api.auth.key_uses import KeyUses
from api.job_watcher import JobWatcher
from api.middleware import RequestMiddleware
from api.prometheus.requests import RequestMetrics
from api.request_rate import RequestRate
from api.routes import (
    aliases,
    audit,
    browser,
    catalog,
    comparison,
    datasets,
    embed,
    health,
    images,
    indexes,
    jobs,
    keys,
    metrics,
    models,
    sessions,
    steering,
    streams,
    sweeps,
    usage,
)
from api.server.drain import Drain
from api.streams.event_stream import Streams
from api.wrong_keys import WrongKeyBrake
from service.db.session import Database
from service.doorbell import Doorbell
from service.settings import Settings
from service.storage import Storage

ROUTERS: Sequence[APIRouter] = (
    datasets.router,
    images.router,
    comparison.router,  # before /jobs/{job_id}
    jobs.router,
    steering.router,
    metrics.router,
    streams.router,
    models.router,
    aliases.router,
    embed.router,
    indexes.router,
    indexes.uploads,
    sweeps.router,
    keys.router,
    sessions.router,
    audit.router,
    usage.router,
    catalog.router,
    health.router,
    browser.router,
)
_STORE_SECONDS = 5  # for the last uses of keys, when the API stops
DESCRIPTION = """Twoviews trains image encoders without labels. Upload images, submit a job, follow its metrics,
evaluate the encoder with a few labels, and embed images.

Every route but `/health/*` needs a key with the scope that it names: `Authorization: Bearer tv_…`. Every error is
`application/problem+json` (RFC 9457) with a `code` for programs. A POST that creates a resource accepts an
`Idempotency-Key`."""


def create(
    settings: Settings | None = None, request_metrics: RequestMetrics | None = None, drain: Drain | None = None
) -> FastAPI:
    """Create the application. It connects on first use, so it starts while the database is unreachable.

    request_metrics: those in which the server counts what it refuses itself; drain: that of the server, if it has one.
    """
    settings, drain = settings or Settings(), drain or Drain()
    request_metrics = request_metrics or RequestMetrics()
    app = FastAPI(
        title="Twoviews",
        version=version("twoviews"),
        description=DESCRIPTION,
        lifespan=_lifespan,
        redirect_slashes=False,
        responses=openapi.RESPONSES,
        docs_url=None,  # api.routes.browser
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.request_metrics = request_metrics
    app.state.database = Database(settings.database)
    app.state.request_rate = RequestRate(settings.quota_requests_per_minute)
    app.state.storage = Storage(settings.data_dir)
    app.state.drain = drain
    most = max(1, settings.http_connections // 2)  # the others are for requests that do not wait
    app.state.job_watcher = JobWatcher(app.state.database, settings.long_polls_per_key, most, drain)
    app.state.streams = Streams(app.state.database, app.state.job_watcher, drain, settings.stream_keep_alive_seconds)
    app.state.probes = {}
    app.state.doorbell = Doorbell(settings.broker_url)
    app.state.key_uses = KeyUses(app.state.database, settings.key_use_seconds)
    app.state.wrong_keys = WrongKeyBrake(settings.wrong_keys_per_minute)
    app.state.routes = [(route.path_regex, route.methods) for router in ROUTERS for route in router.routes]  # type: ignore[attr-defined]
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(RequestMiddleware, metrics=request_metrics, drain=drain)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with create_task_group() as tasks:
        tasks.start_soon(app.state.key_uses.run)
        yield
        tasks.cancel_scope.cancel()
    with move_on_after(_STORE_SECONDS):  # the database may be away
        await run_sync(app.state.key_uses.store, abandon_on_cancel=True)
    app.state.doorbell.close()
    app.state.database.close()
