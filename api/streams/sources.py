"""Sources of streams: the points or the events of a job, of which a page is a message, or several."""

from dataclasses import dataclass
from typing import Protocol

import orjson
from fastapi.sse import format_sse_event

from api import serializers
from service import jobs, metrics
from service.db.session import Database
from service.jobs import JobState

EVENTS_PER_PAGE = 200


@dataclass(frozen=True, slots=True)
class Page:
    """Messages of a stream, empty if there are none; `last` is the cursor after them."""

    messages: bytes
    last: int


class Source(Protocol):
    """What a stream sends; equal sources have equal pages, so that listeners share them."""

    @property
    def job_id(self) -> str: ...

    def get_last(self, state: JobState) -> int:
        """Return the cursor of the newest item."""

    def read(self, database: Database, after: int, until: int) -> Page:
        """Return the page of what is after the cursor `after`, up to `until`."""


@dataclass(frozen=True, slots=True)
class MetricsSource:
    """The points of a job, of all series or of those named; a message has a page of them, in columns."""

    job_id: str
    names: tuple[str, ...] | None

    def get_last(self, state: JobState) -> int:
        return state.last_point

    def read(self, database: Database, after: int, until: int) -> Page:
        with database.connecting() as connection:
            page = metrics.list_points(connection, self.job_id, self.names, after, until)
        return Page(encode("metrics", page.to_columns(), page.last) if page.points else b"", page.last)


@dataclass(frozen=True, slots=True)
class EventsSource:
    """The events of a job; each is a message."""

    job_id: str

    def get_last(self, state: JobState) -> int:
        return state.last_event

    def read(self, database: Database, after: int, until: int) -> Page:
        with database.reading() as session:
            found = jobs.events(session, self.job_id, after, EVENTS_PER_PAGE)
            messages = [encode("event", serializers.event(event), event.seq) for event in found.items]
        return Page(b"".join(messages), found.last if found.has_more else max(found.last, until))


def encode(event: str, data: object, cursor: int) -> bytes:
    """Return a message of Server-Sent Events."""
    return format_sse_event(event=event, id=str(cursor), data_str=orjson.dumps(data).decode())
