"""A decoder: image files to the pixels that a model takes, in turns between owners, within budgets of pixels.

Images of at most LARGE_PIXELS have threads of their own, so that they never wait for a large one.
"""

from asyncio import gather
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from typing import TypeVar

import torch

from service.errors import EncoderFailed, NotAnImage, TooManyPixels
from service.settings import Settings
from ssl_core.data.decode import LARGE_PIXELS, BadImage, count_pixels, decode, decode_square
from ssl_core.device import return_freed_memory
from ssl_core.errors import Fault
from ssl_core.models.encoder import Encoder
from worker.encoder.batcher import Pixels
from worker.encoder.turns import Turns

TRIM_PIXELS = 2**22  # beyond which memory is returned after each image; that takes a few milliseconds
T = TypeVar("T")


class Decoder:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings, threads: int) -> None:
        self._max_pixels = settings.max_image_pixels
        self._max_costly_pixels = settings.embed_max_costly_pixels
        self._max_sum = settings.embed_max_pixels
        self._executors = [
            ThreadPoolExecutor(threads, name, torch.set_num_threads, (1,)) for name in ("small", "large")
        ]
        small, large = self._executors
        self._small = Turns(small, slots=threads, budget=threads * LARGE_PIXELS)
        self._large = Turns(large, slots=threads, budget=settings.embed_decode_pixels)

    def stop(self) -> None:
        """Stop the threads."""
        for executor in self._executors:
            executor.shutdown(cancel_futures=True)

    async def decode(self, model: Encoder, blobs: Sequence[bytes], owner: str) -> list[Pixels]:
        """Decode and preprocess all images. Raises one NotAnImage that names every invalid image.

        Raises TooManyPixels, by the headers of the files, before an image is decoded.
        """
        counts = await self.run(owner, 0, partial(self._count_all, blobs))
        self._check_sum(counts)
        jobs = (self._prepare(model, blob, count, owner) for blob, count in zip(blobs, counts, strict=True))
        results = await gather(*jobs)
        faults = [
            Fault(pointer=f"/images/{index}", code=result.code, detail=result.detail)
            for index, result in enumerate(results)
            if isinstance(result, BadImage)
        ]
        if faults:
            raise NotAnImage(f"{faults[0]['pointer']}: {faults[0]['detail']}", errors=faults)
        return [result for result in results if not isinstance(result, BadImage)]

    async def run(self, owner: str, pixels: int, work: Callable[[], T]) -> T:
        """Return the result of work that decodes an image of so many pixels, in the owner's turn."""
        turns = self._large if pixels > LARGE_PIXELS else self._small
        return await turns.run(owner, pixels, partial(_decode, pixels, work))

    def _count_all(self, blobs: Sequence[bytes]) -> list[int | BadImage]:
        count = partial(count_pixels, max_pixels=self._max_pixels, max_costly_pixels=self._max_costly_pixels)
        return [_attempt(partial(count, blob)) for blob in blobs]

    def _check_sum(self, counts: Sequence[int | BadImage]) -> None:
        sums = accumulate(0 if isinstance(count, BadImage) else count for count in counts)
        index = next((index for index, pixels in enumerate(sums) if pixels > self._max_sum), None)
        if index is not None:
            detail = f"The images of a request can have at most {self._max_sum:,} pixels together."
            fault = Fault(pointer=f"/images/{index}", code="too_many_pixels", detail=detail)
            raise TooManyPixels(f"{fault['pointer']}: {detail}", errors=[fault])

    async def _prepare(self, model: Encoder, blob: bytes, count: int | BadImage, owner: str) -> Pixels | BadImage:
        if isinstance(count, BadImage):
            return count
        return await self.run(owner, count, partial(_attempt, partial(_prepare, model, blob, count)))


def _decode(pixels: int, work: Callable[[], T]) -> T:
    """Do the work, and return the memory that a large image took. Raises EncoderFailed when there is too little."""
    try:
        return work()
    except MemoryError as error:
        raise EncoderFailed("There is not enough memory for this image now; try again.", retry_after=10) from error
    finally:
        if pixels > TRIM_PIXELS:
            return_freed_memory()


def _prepare(model: Encoder, blob: bytes, count: int) -> Pixels:
    values = model.preprocessing.values
    if count > LARGE_PIXELS:
        return model.prepare(decode_square(blob, model.image_size, channels=model.channels, values=values))
    return model.prepare(decode(blob, count, channels=model.channels, values=values))


def _attempt(work: Callable[[], T]) -> T | BadImage:
    try:
        return work()
    except BadImage as bad:
        return bad
