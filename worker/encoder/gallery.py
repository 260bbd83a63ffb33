"""A gallery: the images of packed datasets, as people look at them.

Thumbnails are JPEG, which every browser shows and is the fastest to encode, at full colour resolution, so that small
images stay sharp. They are decoded in the pools of `Decoder`, in turns with the owner's own images for embedding and
with other owners, and kept in a cache.
"""

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import Corrupt, ImageNotFound, TooManyPixels
from service.settings import Settings
from service.storage import Storage
from ssl_core.data.centre_crop import resize
from ssl_core.data.dataset import Dataset
from ssl_core.data.decode import BadImage, count_pixels, decode
from ssl_core.data.split_names import SPLITS
from ssl_core.errors import Corrupt as CorruptFile
from ssl_core.reports.false_colour import to_rgb
from worker.encoder.byte_cache import ByteCache
from worker.encoder.decoder import Decoder
from worker.encoder.loading_cache import LoadingCache
from worker.encoder.places import Places

MEDIA_TYPE = "image/jpeg"
QUALITY = 90
OPEN_DATASETS = 16  # kept open; their files are mapped into memory, not read
WAITING = 1024  # requests without an answer yet
OWNER_WAITING = 256  # of one owner


class Gallery:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings, decoder: Decoder) -> None:
        self.rendered = 0  # thumbnails since the start
        self._storage = Storage(settings.data_dir)
        self._decoder = decoder
        self._max_costly_pixels = settings.embed_max_costly_pixels
        self._idle_seconds = settings.embed_idle_seconds
        self._opener = ThreadPoolExecutor(1, "open")
        self._datasets: LoadingCache[Dataset] = LoadingCache(
            self._open,
            capacity=OPEN_DATASETS,
            max_bytes=0,
            measure=lambda _: 0,
            idle_seconds=settings.embed_idle_seconds,
            executor=self._opener,
        )
        self._thumbnails = ByteCache(settings.thumbnail_cache_bytes)
        self._places = Places(WAITING, OWNER_WAITING)
        self._dropping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to close idle datasets."""
        self._dropping = asyncio.get_running_loop().create_task(self._drop_idle_datasets())

    def stop(self) -> None:
        """Stop what `start` started; all requests must have been answered."""
        if self._dropping is not None:
            self._dropping.cancel()
        self._opener.shutdown(cancel_futures=True)

    @property
    def cached_bytes(self) -> int:
        return self._thumbnails.size

    async def describe(self, path: str, rows: Sequence[int], owner: str) -> list[dict[str, Any]]:
        """Return `{row, split, label, width, height, name}` of each row; the label is a number or None.

        path: of the dataset, relative to the storage. Raises ImageNotFound, Corrupt, EncoderBusy.
        """
        with self._places.hold(owner):
            dataset = await self._datasets.get(path, owner)
            _check_rows(dataset, rows)
            return await self._decoder.run(_turn_of(owner), 0, partial(_describe, dataset, rows))

    async def draw_thumbnail(self, path: str, row: int, size: int, owner: str) -> bytes:
        """Return an image as a JPEG whose longer side has at most `size` pixels; it is never enlarged.

        Raises ImageNotFound, Corrupt, TooManyPixels, EncoderBusy. When cancelled before its turn, it is dropped.
        """
        key = (path, row, size)
        if (known := self._thumbnails.get(key)) is not None:
            return known
        with self._places.hold(owner):
            dataset = await self._datasets.get(path, owner)
            _check_rows(dataset, [row])
            work = partial(_draw, dataset, row, size, self._max_costly_pixels)
            drawn = await self._decoder.run(_turn_of(owner), _estimate_pixels(dataset, row), work)
        self._thumbnails.put(key, drawn)
        self.rendered += 1
        return drawn

    def _open(self, path: str) -> Dataset:
        try:
            return Dataset.open(self._storage.absolute(path))
        except CorruptFile as error:
            raise Corrupt(str(error)) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Corrupt("The stored files of the dataset are missing or cannot be read.") from error

    async def _drop_idle_datasets(self) -> None:
        """Close datasets that were not used: the files of a deleted one take up space until then."""
        while True:
            await asyncio.sleep(min(self._idle_seconds / 4, 30))
            self._datasets.drop_idle()


def _turn_of(owner: str) -> str:
    """The name under which an owner's images are looked at in turns with those that the same owner embeds."""
    return f"{owner} looks"


def _check_rows(dataset: Dataset, rows: Sequence[int]) -> None:
    if rows and max(rows) >= len(dataset):
        raise ImageNotFound(f"The dataset has {len(dataset):,} images; there is no row {max(rows)}.")


def _estimate_pixels(dataset: Dataset, row: int) -> int:
    """Return the number of pixels of the row; deep ones count for each channel."""
    if dataset.pixels is not None:
        return 0
    stored = dataset.describe(row)
    return int(stored["width"] * stored["height"] * (dataset.channels if dataset.report.get("range") else 1))


def _describe(dataset: Dataset, rows: Sequence[int]) -> list[dict[str, Any]]:
    found = [{"row": row, **dataset.describe(row)} for row in rows]
    return [image | {"split": SPLITS[image["split"]]} for image in found]


def _draw(dataset: Dataset, row: int, size: int, max_costly_pixels: int) -> bytes:
    picture = to_rgb(_read(dataset, row, size, max_costly_pixels))
    height, width = picture.shape[:2]
    if (longer := max(height, width)) > size:
        shown = (max(1, round(width * size / longer)), max(1, round(height * size / longer)))
        picture = resize(np.ascontiguousarray(picture), shown)
    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(target, "JPEG", quality=QUALITY, subsampling=0)
    return target.getvalue()


def _read(dataset: Dataset, row: int, size: int, max_costly_pixels: int) -> NDArray[np.uint8]:
    """Return the image, uint8 H×W×C; a JPEG at about twice the size."""
    try:
        if dataset.pixels is not None:
            return dataset.read_image(row)
        file = dataset.read_file(row)
        most = count_pixels(file, np.inf, max_costly_pixels)
        return decode(file, most, channels=dataset.channels, values=dataset.value_range, side=2 * size)
    except CorruptFile as error:
        raise Corrupt(str(error)) from error
    except BadImage as error:
        if error.code == "too_many_pixels":
            raise TooManyPixels(error.detail) from error
        raise Corrupt(f"The stored image of row {row} cannot be decoded: {error.detail}") from error
