"""Image store: the training images of a run, cached in memory where they fit, as uint8 batches.

Images of one small size are read from the dataset's pixel array. Others are decoded, downscaled to 1.5 times
`image_size`, and cached in memory; where they do not fit, they are decoded again for each batch, to the same bytes.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core.data.centre_crop import centre_crop, resize
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_batch import CanvasGroup, ImageBatch, allocate_pixels
from ssl_core.data.sampling import Rows
from ssl_core.device import count_processors

MAX_SHORTER_SIDE = 1.5  # of a stored image, in image sizes
_CANVAS_STEP = 32  # the sides of a canvas are multiples of this
_MEMORY_SHARE = 0.3  # of host or device memory, for the cached images
_CGROUP = Path("/sys/fs/cgroup/memory.max")


class ImageStore:
    """The images of a run; `batch` accepts only the dataset's `rows` given here."""

    def __init__(self, dataset: Dataset, rows: Rows, image_size: int, device: torch.device) -> None:
        """image_size: the largest side of a view, in pixels."""
        self._dataset = dataset
        self.device = device
        self._sizes = dataset.sizes if dataset.pixels is not None else limit_sizes(dataset.sizes, image_size)
        self._pool = ThreadPoolExecutor(count_processors(), thread_name_prefix="decode")
        size_bytes = int(self._canvas_sizes(rows).prod(1).sum()) * dataset.channels
        self._cache: ImageBatch | None = None
        if size_bytes <= _memory_budget():
            self._fill_cache(rows, size_bytes)

    @property
    def is_in_memory(self) -> bool:
        """Whether batches are read without decoding."""
        return self._cache is not None

    def batch(self, rows: Tensor) -> ImageBatch:
        """Return the images of the rows (int64 N, on the CPU).

        They are where they are cached, or in host memory, which is pinned for a run on a GPU.
        """
        if self._cache is None:
            return self._load(rows.numpy(), pinned=self.device.type == "cuda")
        found = self._cache.take(torch.from_numpy(self._cache_index[rows.numpy()]))
        return found.pin() if found.device.type != self.device.type else found

    def _fill_cache(self, rows: Rows, size_bytes: int) -> None:
        self._cache = self._load(rows)
        if self.device.type == "cuda" and size_bytes <= _MEMORY_SHARE * torch.cuda.mem_get_info(self.device)[0]:
            self._cache = self._cache.to(self.device)
        self._cache_index = np.full(len(self._dataset), -1, dtype=np.int64)
        self._cache_index[rows] = np.arange(len(rows))

    def _canvas_sizes(self, rows: Rows) -> Rows:
        """The height and width of each image's canvas, N×2."""
        sizes = self._sizes[rows]
        return sizes if self._dataset.pixels is not None else -(-sizes // _CANVAS_STEP) * _CANVAS_STEP

    def _load(self, rows: Rows, *, pinned: bool = False) -> ImageBatch:
        """Read the rows from the dataset into host memory, pinned or not."""
        if self._dataset.pixels is not None:
            shape = (len(rows), *self._dataset.pixels.shape[1:])
            (pixels,) = allocate_pixels([shape], pinned=pinned)
            self._dataset.read_pixels(rows, pixels.numpy())
            return ImageBatch.of_pixels(pixels)
        batch = self._allocate(rows, pinned=pinned)
        canvases = [
            (index, canvas)
            for group in batch.groups
            for index, canvas in zip(group.indices.tolist(), group.pixels.numpy(), strict=True)
        ]
        # All images in one queue, the largest first, so that the threads end at nearly the same time.
        pixel_counts = self._dataset.sizes[rows].prod(1)
        canvases.sort(key=lambda found: -pixel_counts[found[0]])
        list(self._pool.map(lambda found: self._read_into(found[1], int(rows[found[0]])), canvases))
        return batch

    def _allocate(self, rows: Rows, *, pinned: bool) -> ImageBatch:
        """The batch of the rows, on canvases that are not initialised."""
        canvases, canvas_of = np.unique(self._canvas_sizes(rows), axis=0, return_inverse=True)
        members = [np.flatnonzero(canvas_of.reshape(-1) == number) for number in range(len(canvases))]
        shapes = [
            (len(indices), *canvas, self._dataset.channels)
            for indices, canvas in zip(members, canvases.tolist(), strict=True)
        ]
        groups = (
            CanvasGroup(torch.from_numpy(indices), pixels, torch.from_numpy(self._sizes[rows[indices]]))
            for indices, pixels in zip(members, allocate_pixels(shapes, pinned=pinned), strict=True)
        )
        return ImageBatch(tuple(groups), len(rows))

    def _read_into(self, canvas: NDArray[np.uint8], row: int) -> None:
        height, width = self._sizes[row].tolist()
        image = self._dataset.read_image(row)
        if image.shape[:2] != (height, width):
            image = resize(image, (width, height))
        canvas[:height, :width] = image
        canvas[:height, width:] = 0
        canvas[height:] = 0


def read_centre_crops(dataset: Dataset, rows: Rows, side: int) -> Tensor:
    """Return the centre crops of the rows (`ssl_core.data.centre_crop`), uint8 N×side×side×C."""
    if dataset.pixels is not None and dataset.pixels.shape[1:3] == (side, side):
        return torch.from_numpy(dataset.read_pixels(rows))
    out = np.empty((len(rows), side, side, dataset.channels), dtype=np.uint8)

    def read(canvas: NDArray[np.uint8], row: int) -> None:
        canvas[:] = centre_crop(dataset.read_image(row), side)

    with ThreadPoolExecutor(count_processors(), thread_name_prefix="centre_crop") as pool:
        list(pool.map(read, out, rows.tolist()))
    return torch.from_numpy(out)


def limit_sizes(sizes: Rows, image_size: int) -> Rows:
    """Return heights and widths N×2, scaled so that no shorter side exceeds 1.5 image sizes."""
    limit = math.ceil(MAX_SHORTER_SIDE * image_size)
    shorter = sizes.min(1, keepdims=True)
    return np.where(shorter > limit, np.rint(sizes * (limit / shorter)).astype(np.int64), sizes)


def _memory_budget() -> float:
    """The host memory for cached images, in bytes."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if _CGROUP.exists() and (text := _CGROUP.read_text().strip()).isdigit():
        limit = min(limit, int(text))
    return _MEMORY_SHARE * limit
