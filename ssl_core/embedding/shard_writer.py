"""The shard writer: a thread that writes shards while the next images are embedded."""

import queue
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ssl_core import events
from ssl_core.config.embedding import ShardRange
from ssl_core.embedding.shard_files import ShardFolder, Vectors

_DEPTH = 4  # parts that wait to be written
_POLL_SECONDS = 0.1


class Aborted(Exception):
    """The shard is not written to its end."""


class ShardWriter:
    """Takes the vectors of one shard after the other, in order. Close it: a shard in progress is then left out."""

    def __init__(self, folder: ShardFolder) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._parts: queue.Queue[Vectors | None] = queue.Queue(_DEPTH)
        self._shards: deque[Future[events.Shard]] = deque()
        self._aborted = threading.Event()

    def start(self, shard: ShardRange) -> None:
        """Begin the files of a shard."""
        parts = self._parts = queue.Queue(_DEPTH)
        self._shards.append(self._pool.submit(self._folder.write, shard, self._take(parts)))

    def add(self, vectors: Vectors) -> None:
        """Add the shard's next vectors; waits while several parts are not written yet. Raises OSError of a write."""
        self._put(vectors)

    def end(self) -> None:
        """All vectors of the shard have been added."""
        self._put(None)

    def list_written(self, *, wait: bool = False) -> Iterator[events.Shard]:
        """Yield the shards that have been written since, or all that were ended. Raises OSError of a write."""
        while self._shards and (wait or self._shards[0].done()):
            yield self._shards.popleft().result()

    def close(self) -> None:
        """Abort a shard in progress, and end the thread."""
        self._aborted.set()
        self._pool.shutdown(cancel_futures=True)

    def _put(self, part: Vectors | None) -> None:
        while True:
            try:
                self._parts.put(part, timeout=_POLL_SECONDS)
            except queue.Full:
                for shard in self._shards:
                    if shard.done():
                        shard.result()
            else:
                return

    def _take(self, parts: "queue.Queue[Vectors | None]") -> Iterator[Vectors]:
        while not self._aborted.is_set():
            try:
                part = parts.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if part is None:
                return
            yield part
        raise Aborted
