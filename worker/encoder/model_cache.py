"""A model cache: each model is loaded once, kept by least recent use, and dropped when it has been idle for long."""

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

    A model that is dropped while requests still use it lives until they are done: they hold it, the cache does not.
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
        """Return the model, loading it if need be; callers that come meanwhile wait for the same load.

        Raises what `load` raises, to all who waited; the next call tries again.
        """
        entry = self._entries.get(name) or self._start(name)
        entry.used_at = self._clock()
        self._entries.move_to_end(name)
        return await asyncio.shield(entry.loading)  # a caller that gives up leaves the load to the others

    def drop_idle(self) -> None:
        """Forget the models that nobody asked for during `idle_seconds`."""
        oldest = self._clock() - self._idle_seconds
        for name in [name for name, entry in self._entries.items() if entry.used_at < oldest and entry.loading.done()]:
            del self._entries[name]

    def names(self) -> list[str]:
        """The models that are kept, least recently used first."""
        return list(self._entries)

    def _start(self, name: str) -> _Entry[M]:
        loading = asyncio.get_running_loop().run_in_executor(self._executor, self._load, name)
        entry = self._entries[name] = _Entry(loading, self._clock())
        loading.add_done_callback(lambda done: self._loaded(name, entry))
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return entry

    def _loaded(self, name: str, entry: _Entry[M]) -> None:
        failed = entry.loading.cancelled() or entry.loading.exception() is not None
        if failed and self._entries.get(name) is entry:
            del self._entries[name]
