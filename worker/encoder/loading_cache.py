"""A loading cache: loads models and datasets once each, drops idle ones, and evicts in fairness to owners.

When there are too many values, or they have too many bytes, the owner with the most loses the one used longest ago.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

M = TypeVar("M")


@dataclass
class _Entry(Generic[M]):
    loading: asyncio.Future[M]
    owner: str
    used_at: float
    size: int = 0  # in bytes, once it is loaded


class LoadingCache(Generic[M]):
    """At most `capacity` values of at most `max_bytes`, by name; one alone may have more bytes.

    Belongs to one event loop; only `load` runs on `executor`.

    A dropped value stays alive until the requests that hold it are done.
    """

    def __init__(
        self,
        load: Callable[[str], M],
        *,
        capacity: int,
        max_bytes: int,
        measure: Callable[[M], int],
        idle_seconds: float,
        executor: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._measure = measure
        self._idle_seconds = idle_seconds
        self._executor = executor
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[M]] = OrderedDict()  # least recently used first

    async def get(self, name: str, owner: str = "") -> M:
        """Return the value of that name, which is loaded for the owner if necessary; concurrent callers share one load.

        Raises what `load` raises, to every waiting caller; the next call tries again.
        """
        entry = self._entries.get(name) or self._start_load(name, owner)
        entry.used_at = self._clock()
        self._entries.move_to_end(name)
        return await asyncio.shield(entry.loading)  # a cancelled caller does not cancel the shared load

    def drop_idle(self) -> None:
        """Drop the values that were not requested for `idle_seconds`."""
        oldest = self._clock() - self._idle_seconds
        for name in [name for name, entry in self._entries.items() if entry.used_at < oldest and entry.loading.done()]:
            del self._entries[name]

    def names(self) -> list[str]:
        """The names of the cached values, least recently used first."""
        return list(self._entries)

    def _start_load(self, name: str, owner: str) -> _Entry[M]:
        loading = asyncio.get_running_loop().run_in_executor(self._executor, self._load, name)
        entry = self._entries[name] = _Entry(loading, owner, self._clock())
        loading.add_done_callback(lambda done: self._end_load(name, entry))
        while len(self._entries) > self._capacity:
            self._evict(entry, lambda other: 1)
        return entry

    def _evict(self, newest: _Entry[M], weigh: Callable[[_Entry[M]], int]) -> None:
        """Drop the least recently used value of the owner whose values weigh the most, but not the newest.

        Of several such owners, that of the newest value loses one of its own if it can.
        """
        weights: Counter[str] = Counter()
        for entry in self._entries.values():
            weights[entry.owner] += weigh(entry)
        others = [(name, entry) for name, entry in self._entries.items() if entry is not newest and weigh(entry)]
        most = max(weights[entry.owner] for _, entry in others)
        heaviest = [(name, entry.owner) for name, entry in others if weights[entry.owner] == most]
        del self._entries[min(heaviest, key=lambda found: found[1] != newest.owner)[0]]

    def _end_load(self, name: str, entry: _Entry[M]) -> None:
        """Drop a value that could not be loaded; evict others until the bytes of all fit."""
        failed = entry.loading.cancelled() or entry.loading.exception() is not None
        if self._entries.get(name) is not entry:
            return
        if failed:
            del self._entries[name]
            return
        entry.size = self._measure(entry.loading.result())
        while entry.size < (size := sum(other.size for other in self._entries.values())) and size > self._max_bytes:
            self._evict(entry, lambda other: other.size)
