"""Routes of streams: the metrics and the events of a job as Server-Sent Events."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from api import schemas
from api.deps import Caller, ReadCaller
from api.json_body import JsonRoute
from api.parameters import metric_names
from api.routes.jobs import JobId
from api.streams.event_stream import EventStream, Streams
from api.streams.sources import EventsSource, MetricsSource, Source
from service import jobs
from service.db.statuses import TERMINAL
from service.jobs import JobState
from service.keys import Identity

router = APIRouter(route_class=JsonRoute)
After = Annotated[int, Query(ge=0, lt=2**63, description="The `id` of a message: those after it are sent.")]
LastEventId = Annotated[
    int | None, Header(ge=0, lt=2**63, description="The same, of the last message received; instead of `after`.")
]


def _describe(event: str, model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Return the response for the OpenAPI document; `itemSchema` is that of each message, as in OpenAPI 3.2."""
    done = {"type": "object", "properties": {"id": {"type": "string"}, "status": {"enum": sorted(TERMINAL)}}}
    content = {"anyOf": [{"$ref": f"#/components/schemas/{model.__name__}"}, done]}
    properties = {
        "event": {"enum": [event, "done"]},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": content},
        "id": {"type": "string", "description": "The cursor."},
        "retry": {"type": "integer", "description": "Milliseconds; sent once, at the start."},
    }
    item = {"itemSchema": {"type": "object", "properties": properties}}
    return {200: {"description": "Messages, until the job has ended.", "content": {EventStream.media_type: item}}}


@router.get(
    "/jobs/{job_id}/metrics/stream",
    tags=["metrics"],
    response_class=Response,
    responses=_describe("metrics", schemas.Metrics),
    summary="Stream a job's metrics",
)
async def stream_metrics(
    request: Request,
    job_id: JobId,
    caller: ReadCaller,
    names: metric_names.Names = None,
    after: After = 0,
    last_event_id: LastEventId = None,
) -> Response:
    """Sends the points after the cursor, then new ones as they are stored.

    A `metrics` message has up to 2,000 points, in columns. `done` with the final `status` follows when the job has
    ended. When the connection ends before, connect again with the `id` of the last message as `Last-Event-ID`.
    """
    source = MetricsSource(job_id, metric_names.split(names))

    def check(connection: Connection) -> None:
        metric_names.check(connection, job_id, source.names)

    return await _open(request, caller, source, after if last_event_id is None else last_event_id, check)


@router.get(
    "/jobs/{job_id}/events/stream",
    tags=["jobs"],
    response_class=Response,
    responses=_describe("event", schemas.Event),
    summary="Stream a job's events",
)
async def stream_events(
    request: Request, job_id: JobId, caller: ReadCaller, after: After = 0, last_event_id: LastEventId = None
) -> Response:
    """Sends the events after the cursor, an `event` message each, then new ones as they are stored.

    `done` follows as for metrics.
    """
    cursor = after if last_event_id is None else last_event_id
    return await _open(request, caller, EventsSource(job_id), cursor, lambda connection: None)


async def _open(
    request: Request, caller: Caller, source: Source, after: int, check: Callable[[Connection], None]
) -> EventStream:
    def read(connection: Connection, identity: Identity) -> tuple[JobState, str]:
        state = jobs.poll(connection, identity.tenant_id, source.job_id)
        check(connection)
        return state, identity.key_id

    state, key_id = await caller.read(read)
    streams: Streams = request.app.state.streams
    return streams.open(source, key_id, state, after)
