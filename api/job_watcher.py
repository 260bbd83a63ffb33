"""The job watcher: reads the state of all jobs that long polls wait for in one query, however many there are."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass

from anyio.to_thread import run_sync

from service import jobs
from service.db.session import Database
from service.errors import TooManyPolls

POLL_SECONDS = 0.3
State = tuple[int, str]  # the `seq` of the last metric point, and the status


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    job_id: str
    known: State
    changed: asyncio.Future[None]


class JobWatcher:
    """Wakes waiting requests when their job has changed. A request that waits holds no thread and no connection."""

    def __init__(self, database: Database, per_key: int) -> None:
        """per_key: the maximum number of requests of one key that wait at a time."""
        self._database = database
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
            self._task = asyncio.create_task(self._watch())
        try:
            await asyncio.wait_for(waiter.changed, seconds)
        except TimeoutError:
            return False
        finally:
            self._remove(waiter)
        return True

    def _remove(self, waiter: _Waiter) -> None:
        self._waiters.pop(waiter)
        if not self._waiters and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                states = await self._read({waiter.job_id for waiter in self._waiters})
            except Exception as error:  # noqa: BLE001 - of the database: each request answers with it
                self._fail(error)
                continue
            for waiter in list(self._waiters):
                if states.get(waiter.job_id, waiter.known) != waiter.known and not waiter.changed.done():
                    waiter.changed.set_result(None)

    async def _read(self, job_ids: Set[str]) -> Mapping[str, State]:
        return self._query(job_ids) if self._database.is_local else await run_sync(self._query, job_ids)

    def _query(self, job_ids: Set[str]) -> Mapping[str, State]:
        with self._database.reading() as session:
            return jobs.poll_all(session, job_ids)

    def _fail(self, error: Exception) -> None:
        for waiter in list(self._waiters):
            if not waiter.changed.done():
                waiter.changed.set_exception(error)
