"""The source of pixels for a run: rows of a dataset in, uint8 batches out.

Images of one small size come straight from the dataset's array. Others are decoded, made as small as training at
`image_size` can bear, and kept in memory; where they would not fit, they are decoded again for each batch, to the same
bytes.
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

MAX_SHORTER_SIDE = 1.5  # the shorter side kept, in image sizes
_CANVAS_STEP = 32  # images of several sizes share canvases whose sides are multiples of this
_MEMORY_SHARE = 0.3  # of the memory, at most so much for the images
_CGROUP = Path("/sys/fs/cgroup/memory.max")


class ImageStore:
    """The images that a run trains on; `rows` are the dataset's, and no other may be asked for later."""

    def __init__(self, dataset: Dataset, rows: Rows, image_size: int, device: torch.device) -> None:
        """image_size: the largest side that views will have."""
        self._dataset = dataset
        self._device = device
        self._sizes = dataset.sizes if dataset.uniform is not None else limit_sizes(dataset.sizes, image_size)
        self._pool = ThreadPoolExecutor(_processors(), thread_name_prefix="decode")
        size_bytes = int(self._canvas_sizes(rows).prod(1).sum()) * 3
        self._cache: ImageBatch | None = None
        if size_bytes <= _memory_budget():
            self._fill_cache(rows, size_bytes)

    @property
    def is_in_memory(self) -> bool:
        """Whether a batch costs no decoding."""
        return self._cache is not None

    def batch(self, rows: Tensor) -> ImageBatch:
        """Return the images of the rows (int64 N, on the CPU) on the run's device."""
        if self._cache is None:
            return self._load(rows.numpy()).to(self._device)
        places = self._cache_position[rows.numpy()]
        return self._cache.take(torch.from_numpy(places)).to(self._device)

    def _fill_cache(self, rows: Rows, size_bytes: int) -> None:
        self._cache = self._load(rows)
        if self._device.type == "cuda" and size_bytes <= _MEMORY_SHARE * torch.cuda.mem_get_info(self._device)[0]:
            self._cache = self._cache.to(self._device)
        self._cache_position = np.full(len(self._dataset), -1, dtype=np.int64)
        self._cache_position[rows] = np.arange(len(rows))

    def _canvas_sizes(self, rows: Rows) -> Rows:
        """N×2: the height and width of the canvas on which each image lies."""
        sizes = self._sizes[rows]
        return sizes if self._dataset.uniform is not None else -(-sizes // _CANVAS_STEP) * _CANVAS_STEP

    def _load(self, rows: Rows) -> ImageBatch:
        """Read the rows from the dataset into host memory."""
        if self._dataset.uniform is not None:
            return ImageBatch.of_pixels(torch.from_numpy(self._dataset.uniform[rows]))
        canvases, canvas_of = np.unique(self._canvas_sizes(rows), axis=0, return_inverse=True)
        groups = []
        for number, canvas in enumerate(canvases.tolist()):
            places = np.flatnonzero(canvas_of.reshape(-1) == number)
            pixels = np.zeros((len(places), *canvas, 3), dtype=np.uint8)
            list(self._pool.map(self._read_into, pixels, rows[places].tolist()))
            sizes = torch.from_numpy(self._sizes[rows[places]])
            groups.append(CanvasGroup(torch.from_numpy(places), torch.from_numpy(pixels), sizes))
        return ImageBatch(tuple(groups), len(rows))

    def _read_into(self, canvas: NDArray[np.uint8], row: int) -> None:
        height, width = self._sizes[row].tolist()
        image = self._dataset.read_image(row)
        if image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        canvas[:height, :width] = image


def read_centre_crops(dataset: Dataset, rows: Rows, side: int) -> Tensor:
    """Return the rows as an encoder sees them (`ssl_core.data.centre_crop`): uint8 N×side×side×3."""
    if dataset.uniform is not None and dataset.uniform.shape[1:3] == (side, side):
        return torch.from_numpy(dataset.uniform[rows])
    out = np.empty((len(rows), side, side, 3), dtype=np.uint8)

    def read(canvas: NDArray[np.uint8], row: int) -> None:
        canvas[:] = centre_crop(dataset.read_image(row), side)

    with ThreadPoolExecutor(_processors(), thread_name_prefix="centre_crop") as pool:
        list(pool.map(read, out, rows.tolist()))
    return torch.from_numpy(out)


def limit_sizes(sizes: Rows, image_size: int) -> Rows:
    """Return N×2 heights and widths once no shorter side is above 1.5 image sizes."""
    limit = math.ceil(MAX_SHORTER_SIDE * image_size)
    shorter = sizes.min(1, keepdims=True)
    return np.where(shorter > limit, np.rint(sizes * (limit / shorter)).astype(np.int64), sizes)


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_budget() -> float:
    """Bytes of host memory that the images may take."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if _CGROUP.exists() and (text := _CGROUP.read_text().strip()).isdigit():
        limit = min(limit, int(text))
    return _MEMORY_SHARE * limit
