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
from PIL import Image
from torch import Tensor

from ssl_core.data.centre_crop import centre_crop
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_batch import CanvasGroup, ImageBatch
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
        size_bytes = int(self._canvas_sizes(rows).prod(1).sum()) * 3
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
            found = self._load(rows.numpy())
        else:
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

    def _load(self, rows: Rows) -> ImageBatch:
        """Read the rows from the dataset into host memory."""
        if self._dataset.pixels is not None:
            return ImageBatch.of_pixels(torch.from_numpy(self._dataset.read_pixels(rows)))
        canvases, canvas_of = np.unique(self._canvas_sizes(rows), axis=0, return_inverse=True)
        groups = []
        for number, canvas in enumerate(canvases.tolist()):
            indices = np.flatnonzero(canvas_of.reshape(-1) == number)
            pixels = np.zeros((len(indices), *canvas, 3), dtype=np.uint8)
            list(self._pool.map(self._read_into, pixels, rows[indices].tolist()))
            sizes = torch.from_numpy(self._sizes[rows[indices]])
            groups.append(CanvasGroup(torch.from_numpy(indices), torch.from_numpy(pixels), sizes))
        return ImageBatch(tuple(groups), len(rows))

    def _read_into(self, canvas: NDArray[np.uint8], row: int) -> None:
        height, width = self._sizes[row].tolist()
        image = self._dataset.read_image(row)
        if image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        canvas[:height, :width] = image


def read_centre_crops(dataset: Dataset, rows: Rows, side: int) -> Tensor:
    """Return the centre crops of the rows (`ssl_core.data.centre_crop`), uint8 N×side×side×3."""
    if dataset.pixels is not None and dataset.pixels.shape[1:3] == (side, side):
        return torch.from_numpy(dataset.read_pixels(rows))
    out = np.empty((len(rows), side, side, 3), dtype=np.uint8)

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
