"""Prefetching: a background thread computes the next items of an iterator."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.2


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield the items in order, at most `depth` of them computed in advance; an error is raised in place of its item.

    Closing the generator, as leaving a `for` loop does, ends the thread.
    """
    ready: queue.Queue[T | _End] = queue.Queue(depth)
    closed = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, ready, closed), name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error:
            raise item.error
    finally:
        closed.set()
        thread.join()


def _produce(items: Iterable[T], ready: "queue.Queue[T | _End]", closed: threading.Event) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            if not _put(ready, item, closed):
                return
    except BaseException as caught:  # noqa: BLE001 - `prefetch` raises it again
        error = caught
    _put(ready, _End(error), closed)


def _put(ready: "queue.Queue[T | _End]", item: "T | _End", closed: threading.Event) -> bool:
    """Queue an item; return False when the generator has been closed."""
    while not closed.is_set():
        try:
            ready.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            continue
        return True
    return False
