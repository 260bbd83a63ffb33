"""A model cache: loads each model once, evicts the least recently used, and drops idle models."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

M = TypeVar("M")


@dataclass
class _Entry(Generic[M]):
    loading: asyncio.Future[M]
    used_at: float


class ModelCache(Generic[M]):
    """At most `capacity` models, by name. Belongs to one event loop; only `load` runs on `executor`.

    A dropped model stays alive until the requests that hold it are done.
    """

    def __init__(
        self,
        load: Callable[[str], M],
        *,
        capacity: int,
        idle_seconds: float,
        executor: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._capacity = capacity
        self._idle_seconds = idle_seconds
        self._executor = executor
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[M]] = OrderedDict()  # least recently used first

    async def get(self, name: str) -> M:
        """Return the model, loading it if necessary; concurrent callers share one load.

        Raises what `load` raises, to every waiting caller; the next call tries again.
        """
        entry = self._entries.get(name) or self._start_load(name)
        entry.used_at = self._clock()
        self._entries.move_to_end(name)
        return await asyncio.shield(entry.loading)  # a cancelled caller does not cancel the shared load

    def drop_idle(self) -> None:
        """Drop the models that were not requested for `idle_seconds`."""
        oldest = self._clock() - self._idle_seconds
        for name in [name for name, entry in self._entries.items() if entry.used_at < oldest and entry.loading.done()]:
            del self._entries[name]

    def names(self) -> list[str]:
        """The names of the cached models, least recently used first."""
        return list(self._entries)

    def _start_load(self, name: str) -> _Entry[M]:
        loading = asyncio.get_running_loop().run_in_executor(self._executor, self._load, name)
        entry = self._entries[name] = _Entry(loading, self._clock())
        loading.add_done_callback(lambda done: self._drop_failed(name, entry))
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return entry

    def _drop_failed(self, name: str, entry: _Entry[M]) -> None:
        failed = entry.loading.cancelled() or entry.loading.exception() is not None
        if failed and self._entries.get(name) is entry:
            del self._entries[name]
