"""A searcher: answers queries of stored indexes.

Indexes are opened when they are first asked for, mapped into memory and closed when they are idle. Searches and the
longer queries have a thread each, which the owners take turns in, so that neither waits for the other.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch

from service.errors import Corrupt, EncoderFailed
from service.indexes.queries import Query
from service.settings import Settings
from service.storage import Storage
from ssl_core.errors import Corrupt as CorruptFile
from ssl_core.errors import is_out_of_memory
from worker.encoder.loading_cache import LoadingCache
from worker.encoder.places import Places
from worker.encoder.search import inverted_lists
from worker.encoder.search.answers import LONG, answer
from worker.encoder.search.index import Index
from worker.encoder.search.nearest import Vectors
from worker.encoder.turns import Turns

OPEN_INDEXES = 64  # each has a handful of open files
WAITING, OWNER_WAITING = 1024, 256  # searches without an answer yet, in all and of one owner
LONG_WAITING, OWNER_LONG_WAITING = 32, 4


class Searcher:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.searches = 0  # answered since the start
        self._storage = Storage(settings.data_dir)
        self._max_products = settings.search_products
        self._idle_seconds = settings.embed_idle_seconds
        self._executors = [ThreadPoolExecutor(1, name, _limit_threads) for name in ("open", "search", "analyse")]
        opener, *workers = self._executors
        self._indexes: LoadingCache[Index] = LoadingCache(
            self._open,
            capacity=OPEN_INDEXES,
            max_bytes=settings.index_open_bytes,
            measure=lambda index: index.size_bytes,
            idle_seconds=settings.embed_idle_seconds,
            executor=opener,
        )
        self._short, self._long = (Turns(worker, slots=1, budget=1) for worker in workers)
        self._places, self._long_places = Places(WAITING, OWNER_WAITING), Places(LONG_WAITING, OWNER_LONG_WAITING)
        self._dropping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to close idle indexes."""
        self._dropping = asyncio.get_running_loop().create_task(self._drop_idle_indexes())

    def stop(self) -> None:
        """Stop what `start` started; all requests must have been answered."""
        if self._dropping is not None:
            self._dropping.cancel()
        for executor in self._executors:
            executor.shutdown(cancel_futures=True)

    def names(self) -> list[str]:
        """The paths of the open indexes, least recently used first."""
        return self._indexes.names()

    async def answer(self, path: str, query: Query, owner: str, vector: Vectors | None = None) -> dict[str, Any]:
        """Return the answer to a query of the index at the path, which is relative to the storage.

        vector: 1×D, of unit length, of a query that names no row. Raises what `answers.answer` does; Corrupt,
        EncoderBusy, EncoderFailed. When cancelled before its turn, it is dropped.
        """
        is_long = isinstance(query, LONG)
        turns, places = (self._long, self._long_places) if is_long else (self._short, self._places)
        with places.hold(owner):
            index = await self._indexes.get(path, owner)
            if vector is not None and vector.shape[1] != index.vectors.shape[1]:
                raise Corrupt("The vectors of the index have another size than those of its model.")
            found = await turns.run(owner, 0, partial(_answer, query, index, vector, self._max_products))
        self.searches += 1
        return found

    def _open(self, path: str) -> Index:
        try:
            return Index.open(self._storage.absolute(path))
        except CorruptFile as error:
            raise Corrupt("The stored files of the index are missing or damaged.") from error
        except OSError as error:
            raise Corrupt("The stored files of the index are missing or cannot be read.") from error

    async def _drop_idle_indexes(self) -> None:
        """Close indexes that were not used: the files of a deleted one take up space until then."""
        while True:
            await asyncio.sleep(min(self._idle_seconds / 4, 30))
            self._indexes.drop_idle()


def _answer(query: Query, index: Index, vector: Vectors | None, max_products: int) -> dict[str, Any]:
    try:
        return answer(query, index, vector, max_products)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise EncoderFailed("There is not enough memory for this query now; try again.", retry_after=10) from error


def _limit_threads() -> None:
    """Compute in one thread, so that the others are free for forward passes."""
    torch.set_num_threads(1)
    inverted_lists.set_threads(1)
