"""The job watcher: reads the state of all jobs that requests wait for in one query, however many there are."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from anyio.to_thread import run_sync

from api.server.drain import Drain
from service import jobs, keys
from service.db.session import Database
from service.errors import TooManyPolls, Unavailable, WrongKey
from service.jobs import JobState

POLL_SECONDS = 0.3
DRAIN_POLL_SECONDS = 1.0
# Waiters wake in groups with a pause between them, in which the event loop serves other requests: a thousand at once
# would occupy it for as long as a thousand responses take.
GROUP_SIZE, GROUP_PAUSE_SECONDS = 10, 0.001


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    key_id: str
    job_id: str
    is_news: Callable[[JobState], bool]
    news: asyncio.Future[JobState | None]  # None: it is answered without any


class JobWatcher:
    """Wakes waiting requests when their job has changed. A request that waits holds no thread and no connection."""

    def __init__(self, database: Database, per_key: int, total: int, drain: Drain) -> None:
        """per_key: the maximum number of requests of one key that wait at a time; total: that of all keys.

        When `drain` begins, those that wait are answered, and later ones wait for at most a second.
        """
        self._database = database
        self._drain, self._has_released = drain, False
        self._per_key, self._total = per_key, total
        self._by_key: Counter[str] = Counter()
        self._waiters: dict[_Waiter, None] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def slot(self, key_id: str) -> Iterator[None]:
        """Count a request of that key as waiting within the block. Raises TooManyPolls, and Unavailable for `total`."""
        if self._by_key[key_id] >= self._per_key:
            raise TooManyPolls(retry_after=1)
        if self._by_key.total() >= self._total:
            raise Unavailable("Too many requests wait for metrics or events; try again in a moment.")
        self._by_key[key_id] += 1
        try:
            yield
        finally:
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]

    async def wait(
        self, key_id: str, job_id: str, is_news: Callable[[JobState], bool], seconds: float
    ) -> JobState | None:
        """Return the first state of the job that is news, or None when there is none within `seconds`.

        Raises WrongKey once the key is revoked or has expired, and what the query raises.
        """
        waiter = _Waiter(key_id, job_id, is_news, asyncio.get_running_loop().create_future())
        self._waiters[waiter] = None
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), context=Context())  # of no request
        try:
            most = min(seconds, DRAIN_POLL_SECONDS) if self._drain.has_begun else seconds
            return await asyncio.wait_for(waiter.news, most)
        except TimeoutError:
            return None
        finally:
            del self._waiters[waiter]

    async def _watch(self) -> None:
        """Poll until nothing waits at the time of a poll: a stream that sends a message waits again soon."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                if not self._waiters:
                    return
                await self._poll()
        finally:
            self._task = None

    async def _poll(self) -> None:
        if self._drain.has_begun and not self._has_released:
            self._has_released = True
            await self._wake(_release)
        try:
            states, valid = await self._read(
                {waiter.job_id for waiter in self._waiters}, {waiter.key_id for waiter in self._waiters}
            )
        except Exception as error:  # noqa: BLE001 - of the database: each request answers with it
            await self._wake(partial(_fail, error=error))
        else:
            await self._wake(partial(_tell, states=states, valid=valid))

    async def _wake(self, tell: Callable[[_Waiter], None]) -> None:
        """Call `tell` with each waiter that waits, and let the event loop run what that wakes, in groups."""
        woken = 0
        for waiter in list(self._waiters):
            if waiter.news.done():
                continue
            tell(waiter)
            woken += waiter.news.done()
            if woken == GROUP_SIZE:
                woken = 0
                await asyncio.sleep(GROUP_PAUSE_SECONDS)

    async def _read(self, job_ids: Set[str], key_ids: Set[str]) -> tuple[Mapping[str, JobState], Collection[str]]:
        if self._database.is_local:
            return self._query(job_ids, key_ids)
        return await run_sync(self._query, job_ids, key_ids)

    def _query(self, job_ids: Set[str], key_ids: Set[str]) -> tuple[Mapping[str, JobState], Collection[str]]:
        with self._database.connecting() as connection:
            return jobs.poll_all(connection, job_ids), keys.list_valid(connection, key_ids)


def _release(waiter: _Waiter) -> None:
    waiter.news.set_result(None)


def _fail(waiter: _Waiter, error: Exception) -> None:
    waiter.news.set_exception(error)


def _tell(waiter: _Waiter, states: Mapping[str, JobState], valid: Collection[str]) -> None:
    state = states.get(waiter.job_id)
    if waiter.key_id not in valid:
        waiter.news.set_exception(WrongKey())
    elif state is not None and waiter.is_news(state):
        waiter.news.set_result(state)
