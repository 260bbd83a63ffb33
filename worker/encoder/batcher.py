"""Dynamic batching: images of different requests for one layer of one model share a forward pass.

A batch runs when it is full, or when its oldest image has waited for `wait_seconds`. Its size is one of a few, so that
kernels see the same shapes again; it is padded with blank images. Its images are of one owner, and owners take turns:
an image of one owner waits for at most one batch of each other owner.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import EncoderBusy, EncoderFailed
from worker.encoder.turns import Rotation

Pixels: TypeAlias = NDArray[np.uint8]  # S×S×C, or N×S×S×C
Features: TypeAlias = NDArray[np.float32]  # N×D
Forward: TypeAlias = Callable[[Pixels], Features]  # of one layer of a model; equal ones share batches
_Key: TypeAlias = tuple[str, Forward]  # owner and forward pass of a queue

log = logging.getLogger(__name__)


def batch_sizes(max_batch: int) -> list[int]:
    """Return the batch sizes in use: 1, 2, 4 … and `max_batch`."""
    return [2**power for power in range(max_batch.bit_length()) if 2**power < max_batch] + [max_batch]


def choose_batch_size(waiting: int, sizes: Sequence[int]) -> int:
    """Return the size of the next batch: the smallest that holds all waiting images, if they fill 3/4 of it.

    Otherwise the next smaller size, and the rest form another batch: padding costs more than a second pass.
    """
    larger = next((size for size in sizes if size >= waiting), sizes[-1])
    smaller = max((size for size in sizes if size <= waiting), default=sizes[0])
    return larger if 4 * waiting >= 3 * larger else smaller


@dataclass(eq=False)
class _Request:
    """The images of one request: the first `taken` are done or in a batch, in order."""

    pixels: Sequence[Pixels]
    arrived_at: float
    result: asyncio.Future[Features]
    taken: int = 0
    done: list[Features] = field(default_factory=list)

    @property
    def remaining(self) -> int:
        return 0 if self.result.done() else len(self.pixels) - self.taken  # cancelled or failed


@dataclass(frozen=True)
class _Part:
    """The images of one request that are in one batch."""

    request: _Request
    pixels: Sequence[Pixels]


@dataclass
class Counts:
    """Images, batches, padding images, and requests refused because the queue was full, since the start."""

    images: int = 0
    batches: int = 0
    blanks: int = 0
    refusals: int = 0


class Batcher:
    """Batches images for one event loop, where `run()` must be running; `executor` runs one forward pass at a time."""

    def __init__(self, *, executor: Executor, max_batch: int, wait_seconds: float, max_images: int) -> None:
        self.counts = Counts()
        self.admitted = 0  # images of requests without an answer yet
        self._executor = executor
        self._sizes = batch_sizes(max_batch)
        self._wait_seconds = wait_seconds
        self._max_images = max_images
        self._admitted: Counter[str] = Counter()  # owner -> images
        self._queues: dict[_Key, deque[_Request]] = {}
        self._rotation = Rotation()
        self._arrival = asyncio.Event()

    @contextmanager
    def admit(self, images: int, owner: str = "") -> Iterator[None]:
        """Reserve places for `images`. Raises EncoderBusy when they do not fit; an empty queue admits any number.

        An owner with at most half of the places finds as many again, so that no other owner can fill the queue.
        """
        modest = self._admitted[owner] + images <= self._max_images // 2
        places = 2 * self._max_images if modest else self._max_images
        if self.admitted and self.admitted + images > places:
            self.counts.refusals += 1
            raise EncoderBusy(retry_after=1)
        self._count(owner, images)
        try:
            yield
        finally:
            self._count(owner, -images)

    def _count(self, owner: str, images: int) -> None:
        self.admitted += images
        self._admitted[owner] += images
        if not self._admitted[owner]:
            del self._admitted[owner]

    async def encode(self, forward: Forward, pixels: Sequence[Pixels], owner: str = "") -> Features:
        """Return N×D for N images of the model's size. When cancelled, images not yet in a batch are dropped."""
        loop = asyncio.get_running_loop()
        request = _Request(pixels, loop.time(), loop.create_future())
        self._queues.setdefault((owner, forward), deque()).append(request)
        self._arrival.set()
        return await request.result

    async def run(self) -> None:
        """Form batches and compute them, in an endless loop."""
        while True:
            owner, forward = await self._wait_for_batch()
            parts, size = self._take_batch((owner, forward))
            if parts:
                self._rotation.serve(owner)
                await self._run_batch(forward, parts, size)

    async def _wait_for_batch(self) -> _Key:
        """Wait until a queue has a full batch or its oldest image is due; return the earliest of the owner in turn.

        That owner's images may not be due yet: they wait to fill a batch only while there is nothing else to compute.
        """
        loop = asyncio.get_running_loop()
        while True:
            self._arrival.clear()
            due = {key: self._due_at(key) for key in list(self._queues)}
            earliest = min(due.values(), default=None)
            if earliest is not None and earliest <= loop.time():
                owner = self._rotation.first([owner for owner, _ in due])
                return min((key for key in due if key[0] == owner), key=lambda key: due[key])
            try:
                async with asyncio.timeout_at(earliest):
                    await self._arrival.wait()
            except TimeoutError:
                pass

    def _due_at(self, key: _Key) -> float:
        """Return when the queue's next batch has to run, by the loop's clock: at once when it is full."""
        requests = self._queues[key]
        full = sum(request.remaining for request in requests) >= self._sizes[-1]
        return requests[0].arrived_at + (0 if full else self._wait_seconds)

    def _take_batch(self, key: _Key) -> tuple[list[_Part], int]:
        """Remove the next batch from the queue: its parts, oldest first, and the size to pad to."""
        requests = self._queues[key]
        size = room = choose_batch_size(sum(request.remaining for request in requests), self._sizes)
        parts: list[_Part] = []
        while requests and room:
            request = requests[0]
            count = min(request.remaining, room)
            if count:
                parts.append(_Part(request, request.pixels[request.taken : request.taken + count]))
            request.taken += count
            room -= count
            if not request.remaining:
                requests.popleft()
        if not requests:
            del self._queues[key]  # an empty queue must not keep its model alive
        return parts, size

    async def _run_batch(self, forward: Forward, parts: list[_Part], size: int) -> None:
        images = [image for part in parts for image in part.pixels]
        try:
            loop = asyncio.get_running_loop()
            features = await loop.run_in_executor(self._executor, _compute, forward, images, size)
        except Exception as error:
            log.exception("A batch of %d failed", size)
            for part in parts:
                _fail(part.request, error if isinstance(error, EncoderFailed) else EncoderFailed())
            return
        self.counts.images += len(images)
        self.counts.batches += 1
        self.counts.blanks += size - len(images)
        start = 0
        for part in parts:
            _deliver(part.request, features[start : start + len(part.pixels)])
            start += len(part.pixels)


def _compute(forward: Forward, images: Sequence[Pixels], size: int) -> Features:
    batch = np.zeros((size, *images[0].shape), np.uint8)
    np.stack(images, out=batch[: len(images)])
    return forward(batch)


def _deliver(request: _Request, features: Features) -> None:
    request.done.append(features)
    if request.taken == len(request.pixels) == sum(map(len, request.done)) and not request.result.done():
        request.result.set_result(request.done[0] if len(request.done) == 1 else np.concatenate(request.done))


def _fail(request: _Request, error: EncoderFailed) -> None:
    if not request.result.done():
        request.result.set_exception(error)
