"""The response of a stream: Server-Sent Events of a job from a cursor on, until the job has ended.

FastAPI's `format_sse_event` writes the messages. Its responses of generators are not used: they encode each message for
each listener, and run three tasks for one.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi.sse import format_sse_event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.job_watcher import JobWatcher
from api.server.drain import Drain
from api.streams.pages import Pages
from api.streams.sources import Source, encode
from service.db.session import Database, is_unreachable
from service.db.statuses import TERMINAL
from service.errors import Unauthorized
from service.jobs import JobState

_RETRY_MS = (1000, 3000)  # drawn for each stream, so that those of a process that stops do not return together
_KEEP_ALIVE = format_sse_event(comment="keep-alive")
_HEADERS = {"Cache-Control": "private, no-cache", "X-Accel-Buffering": "no"}  # nginx passes on each message at once


class Streams:
    """Opens streams; their listeners share the watcher's queries and the pages that are read."""

    def __init__(self, database: Database, watcher: JobWatcher, drain: Drain, keep_alive_seconds: float) -> None:
        self.watcher, self.drain, self.keep_alive_seconds = watcher, drain, keep_alive_seconds
        self.pages = Pages(database)

    def open(self, source: Source, key_id: str, state: JobState, after: int) -> "EventStream":
        """Return the response that sends what the source has after the cursor `after`; `state` is that of its job."""
        return EventStream(_Listener(self, source, key_id, state, min(after, source.get_last(state))))


class EventStream(StreamingResponse):
    """A response of Server-Sent Events, which counts as a waiting request of its key while it is sent."""

    media_type = "text/event-stream"

    def __init__(self, listener: "_Listener") -> None:
        super().__init__(listener.listen(), headers=_HEADERS)
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what `JobWatcher.slot` does, before the response begins."""
        with self._listener.streams.watcher.slot(self._listener.key_id):
            await super().__call__(scope, receive, send)


@dataclass(slots=True)
class _Listener:
    """The client of a stream, and how far it is. It reads a page only after the page before has been sent."""

    streams: Streams
    source: Source
    key_id: str
    state: JobState
    cursor: int

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Yield messages. Ends with `done` when the job has ended, and without it when the client is to come back."""
        yield format_sse_event(retry=random.randint(*_RETRY_MS))
        try:
            async for messages in self._follow():
                yield messages
        except Unauthorized:
            return  # the key was revoked: the client is refused when it comes back
        except (DBAPIError, PoolTimeout) as error:
            if not is_unreachable(error):
                raise

    async def _follow(self) -> AsyncGenerator[bytes, None]:
        streams, time = self.streams, asyncio.get_running_loop().time
        quiet_until = time() + streams.keep_alive_seconds
        while not streams.drain.has_begun:
            messages = b""
            if self._is_behind(self.state):
                page = await streams.pages.read(self.source, self.cursor, self.source.get_last(self.state))
                messages, self.cursor = page.messages, page.last
            elif self.state.status in TERMINAL:
                yield encode("done", {"id": self.source.job_id, "status": self.state.status}, self.cursor)
                return
            else:
                await self._wait(quiet_until - time())
            if messages or time() >= quiet_until:
                yield messages or _KEEP_ALIVE
                quiet_until = time() + streams.keep_alive_seconds

    async def _wait(self, seconds: float) -> None:
        watcher, job_id = self.streams.watcher, self.source.job_id
        self.state = await watcher.wait(self.key_id, job_id, self._is_news, max(0, seconds)) or self.state

    def _is_news(self, state: JobState) -> bool:
        return self._is_behind(state) or state.status in TERMINAL

    def _is_behind(self, state: JobState) -> bool:
        return self.cursor < self.source.get_last(state)
