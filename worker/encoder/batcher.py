"""A batcher: images that wait for the same layer of the same model go through it together, whoever sent them.

A batch leaves when it is full, or when its oldest image has waited long enough. Its size is one of a few buckets, so
that the shapes that the kernels were prepared for come again; blank images fill the last places.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import EncoderBusy, EncoderFailed

Pixels: TypeAlias = NDArray[np.uint8]  # S×S×3, or N×S×S×3
Features: TypeAlias = NDArray[np.float32]  # N×D
Lane: TypeAlias = Callable[[Pixels], Features]  # a layer of a model; equal lanes share batches

log = logging.getLogger(__name__)


def buckets(max_batch: int) -> list[int]:
    """Return the batch sizes in use: 1, 2, 4 … and `max_batch`."""
    return [2**power for power in range(max_batch.bit_length()) if 2**power < max_batch] + [max_batch]


def bucket(waiting: int, sizes: Sequence[int]) -> int:
    """Return the size that the next batch has: the smallest that takes all, if they fill three quarters of it.

    Otherwise the next smaller one, and the rest go with the batch after: a pass with many blanks costs more than two.
    """
    larger = next((size for size in sizes if size >= waiting), sizes[-1])
    smaller = max((size for size in sizes if size <= waiting), default=sizes[0])
    return larger if 4 * waiting >= 3 * larger else smaller


@dataclass(eq=False)
class _Request:
    """The images of one request: the first `taken` are done or in a batch, in order."""

    pixels: Sequence[Pixels]
    since: float
    answer: asyncio.Future[Features]
    taken: int = 0
    done: list[Features] = field(default_factory=list)

    @property
    def left(self) -> int:
        return 0 if self.answer.done() else len(self.pixels) - self.taken  # answered early: the client is gone


@dataclass(frozen=True)
class _Part:
    """The images of one request that are in one batch."""

    request: _Request
    pixels: Sequence[Pixels]


@dataclass
class Counts:
    """What has gone through since the start."""

    images: int = 0
    batches: int = 0
    blanks: int = 0


class Batcher:
    """Belongs to one event loop, where `run()` must be running; forward passes go to `executor`, one after another."""

    def __init__(self, *, executor: Executor, max_batch: int, wait_seconds: float, max_images: int) -> None:
        self.counts = Counts()
        self.admitted = 0  # images taken in and not yet answered
        self._executor = executor
        self._sizes = buckets(max_batch)
        self._wait_seconds = wait_seconds
        self._max_images = max_images
        self._lanes: dict[Lane, deque[_Request]] = {}
        self._arrival = asyncio.Event()

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Hold a place for so many images. Raises EncoderBusy when they don't fit; an empty house takes any number."""
        if self.admitted and self.admitted + images > self._max_images:
            raise EncoderBusy(retry_after=1)
        self.admitted += images
        try:
            yield
        finally:
            self.admitted -= images

    async def encode(self, lane: Lane, pixels: Sequence[Pixels]) -> Features:
        """Return N×D for N images of the lane's size. Cancelled: what is not yet in a batch is dropped."""
        loop = asyncio.get_running_loop()
        request = _Request(pixels, loop.time(), loop.create_future())
        self._lanes.setdefault(lane, deque()).append(request)
        self._arrival.set()
        return await request.answer

    async def run(self) -> None:
        """Form batches and have them computed, for ever."""
        while True:
            lane = await self._ripe()
            parts, size = self._take(lane)
            if parts:
                await self._forward(lane, parts, size)

    async def _ripe(self) -> Lane:
        """Wait until a lane has a full batch or an image that waited long enough; of several, the longest waiting."""
        loop = asyncio.get_running_loop()
        while True:
            self._arrival.clear()
            due = {lane: self._due(lane) for lane in list(self._lanes)}
            lane = min(due, key=lambda lane: due[lane], default=None)
            if lane is not None and due[lane] <= loop.time():
                return lane
            try:
                async with asyncio.timeout_at(None if lane is None else due[lane]):
                    await self._arrival.wait()
            except TimeoutError:
                pass

    def _due(self, lane: Lane) -> float:
        """When the lane's next batch is to leave, by the loop's clock: at once when it is full."""
        requests = self._lanes[lane]
        full = sum(request.left for request in requests) >= self._sizes[-1]
        return requests[0].since + (0 if full else self._wait_seconds)

    def _take(self, lane: Lane) -> tuple[list[_Part], int]:
        """Take the next batch out of the lane: its parts, oldest first, and the size to fill up to."""
        requests = self._lanes[lane]
        size = room = bucket(sum(request.left for request in requests), self._sizes)
        parts: list[_Part] = []
        while requests and room:
            request = requests[0]
            count = min(request.left, room)
            if count:
                parts.append(_Part(request, request.pixels[request.taken : request.taken + count]))
            request.taken += count
            room -= count
            if not request.left:
                requests.popleft()
        if not requests:
            del self._lanes[lane]  # an idle lane must not keep its model alive
        return parts, size

    async def _forward(self, lane: Lane, parts: list[_Part], size: int) -> None:
        images = [image for part in parts for image in part.pixels]
        try:
            features = await asyncio.get_running_loop().run_in_executor(self._executor, _compute, lane, images, size)
        except Exception:
            log.exception("a batch of %d failed", size)
            for part in parts:
                _fail(part.request)
            return
        self.counts.images += len(images)
        self.counts.batches += 1
        self.counts.blanks += size - len(images)
        start = 0
        for part in parts:
            _deliver(part.request, features[start : start + len(part.pixels)])
            start += len(part.pixels)


def _compute(lane: Lane, images: Sequence[Pixels], size: int) -> Features:
    batch = np.zeros((size, *images[0].shape), np.uint8)
    np.stack(images, out=batch[: len(images)])
    return lane(batch)


def _deliver(request: _Request, features: Features) -> None:
    request.done.append(features)
    if request.taken == len(request.pixels) == sum(map(len, request.done)) and not request.answer.done():
        request.answer.set_result(request.done[0] if len(request.done) == 1 else np.concatenate(request.done))


def _fail(request: _Request) -> None:
    if not request.answer.done():
        request.answer.set_exception(EncoderFailed())
