"""The job watcher: reads the state of all jobs that long polls wait for in one query, however many there are."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass

from anyio.to_thread import run_sync

from api.server.drain import Drain
from service import jobs
from service.db.session import Database
from service.errors import TooManyPolls

POLL_SECONDS = 0.3
DRAIN_POLL_SECONDS = 1.0
State = tuple[int, str]  # the `seq` of the last metric point, and the status


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    job_id: str
    known: State
    changed: asyncio.Future[bool]  # False: it is answered without a change


class JobWatcher:
    """Wakes waiting requests when their job has changed. A request that waits holds no thread and no connection."""

    def __init__(self, database: Database, per_key: int, drain: Drain) -> None:
        """per_key: the maximum number of requests of one key that wait at a time.

        When `drain` begins, those that wait are answered, and later ones wait for at most a second.
        """
        self._database = database
        self._drain, self._has_released = drain, False
        self._per_key = per_key
        self._by_key: Counter[str] = Counter()
        self._waiters: dict[_Waiter, None] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def slot(self, key_id: str) -> Iterator[None]:
        """Count a request of that key as waiting within the block. Raises TooManyPolls."""
        if self._by_key[key_id] >= self._per_key:
            raise TooManyPolls(retry_after=1)
        self._by_key[key_id] += 1
        try:
            yield
        finally:
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]

    async def wait(self, job_id: str, known: State, seconds: float) -> bool:
        """Wait until the job's state is another than `known`, for at most `seconds`; return whether it is.

        Raises what the query raises.
        """
        waiter = _Waiter(job_id, known, asyncio.get_running_loop().create_future())
        self._waiters[waiter] = None
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), context=Context())  # of no request
        try:
            most = min(seconds, DRAIN_POLL_SECONDS) if self._drain.has_begun else seconds
            return await asyncio.wait_for(waiter.changed, most)
        except TimeoutError:
            return False
        finally:
            self._remove(waiter)

    def _remove(self, waiter: _Waiter) -> None:
        self._waiters.pop(waiter)
        if not self._waiters and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._drain.has_begun and not self._has_released:
                self._has_released = True
                self._resolve(self._waiters, changed=False)
            try:
                states = await self._read({waiter.job_id for waiter in self._waiters})
            except Exception as error:  # noqa: BLE001 - of the database: each request answers with it
                self._fail(error)
                continue
            changed = [one for one in self._waiters if states.get(one.job_id, one.known) != one.known]
            self._resolve(changed, changed=True)

    def _resolve(self, waiters: Iterable[_Waiter], *, changed: bool) -> None:
        for waiter in waiters:
            if not waiter.changed.done():
                waiter.changed.set_result(changed)

    async def _read(self, job_ids: Set[str]) -> Mapping[str, State]:
        return self._query(job_ids) if self._database.is_local else await run_sync(self._query, job_ids)

    def _query(self, job_ids: Set[str]) -> Mapping[str, State]:
        with self._database.reading() as session:
            return jobs.poll_all(session, job_ids)

    def _fail(self, error: Exception) -> None:
        for waiter in list(self._waiters):
            if not waiter.changed.done():
                waiter.changed.set_exception(error)
