"""Pages of streams: each is read once, in a thread, for all listeners that need it at about the same time."""

import asyncio
from collections.abc import Hashable
from contextvars import Context

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from api.streams.sources import Page, Source
from service.db.session import Database

_KEPT = 32  # pages, of at most 2,000 points or 200 events
_THREADS = 4  # and connections to the database, of those for all requests


class Pages:
    """Reads pages of sources. Points and events are append-only, so a page that was read is never out of date."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks: dict[Hashable, asyncio.Task[Page]] = {}  # the oldest first
        self._threads = CapacityLimiter(_THREADS)

    async def read(self, source: Source, after: int, until: int) -> Page:
        """Return `source.read(after, until)`. Raises what it raises."""
        key = (source, after, until)
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(self._read(source, after, until), context=Context())  # of no request
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._forget_failed(key, done))
            while len(self._tasks) > _KEPT:
                self._tasks.pop(next(iter(self._tasks)))
        return await asyncio.shield(task)

    async def _read(self, source: Source, after: int, until: int) -> Page:
        return await run_sync(source.read, self._database, after, until, limiter=self._threads)

    def _forget_failed(self, key: Hashable, task: asyncio.Task[Page]) -> None:
        if (task.cancelled() or task.exception() is not None) and self._tasks.get(key) is task:
            del self._tasks[key]
