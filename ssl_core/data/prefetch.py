"""Prefetching: the next items of an iterator are made by a thread while the present one is used."""

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
    """Yield the items in their order, at most `depth` of them made in advance; errors surface where they fall.

    Close the generator (leaving a `for` loop does) and the thread ends.
    """
    ready: queue.Queue[T | _End] = queue.Queue(depth)
    over = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, ready, over), name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error:
            raise item.error
    finally:
        over.set()
        thread.join()


def _produce(items: Iterable[T], ready: "queue.Queue[T | _End]", over: threading.Event) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            if not _put(ready, item, over):
                return
    except BaseException as caught:  # noqa: BLE001 - it is raised again by the reader
        error = caught
    _put(ready, _End(error), over)


def _put(ready: "queue.Queue[T | _End]", item: "T | _End", over: threading.Event) -> bool:
    """Hand the item over; False when nobody reads any more."""
    while not over.is_set():
        try:
            ready.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            continue
        return True
    return False
