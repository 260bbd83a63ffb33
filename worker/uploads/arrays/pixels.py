"""Pixels of arrays: which axes and which range of values an array of images has, and its rows as encoded files.

uint8 and bool arrays are 8 bits deep, and so are others whose values run from 0 to 1 or to 255. The rest keeps its
values, as images of more bits, which are scaled by the range of the set.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_core.config import Reading
from ssl_core.config.reading import MAX_CHANNELS
from ssl_core.data import decode
from ssl_core.data.items import PackError
from worker.uploads.arrays.array import Array, read_row
from worker.uploads.limits import Meter

Axes = Literal["HW", "HWC", "CHW"]

SHAPES = "N×H×W, N×H×W×C or, with few channels and larger sides, N×C×H×W"
_MAX_ROW_BYTES = 2**30
_MIN_FLAT_SIDE = 8
_MANY = 16  # pixels: an axis of more is no axis of channels
_FACTORS = {"u1": 1.0, "b1": 255.0}
_DULL = 128  # that 8-bit images reach, all together


@dataclass(frozen=True, slots=True)
class Geometry:
    """The axes of one image, and its height, width and channels."""

    axes: Axes
    height: int
    width: int
    channels: int

    def arrange(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels H×W, or H×W×C where there are several channels."""
        if self.channels == 1:
            return row.reshape(self.height, self.width)
        if self.axes == "CHW":
            return row.reshape(self.channels, self.height, self.width).transpose(1, 2, 0)
        return row.reshape(self.height, self.width, self.channels)


def is_image_like(array: Array) -> bool:
    """Return whether an array without a telling name can only hold images."""
    if array.dtype.kind not in "buif" or len(array.shape) not in (3, 4):
        return False
    try:
        find_geometry(array)
    except PackError:
        return False
    return True


def find_geometry(array: Array) -> Geometry:
    """Return the axes of the images. Raises PackError when they are not certain."""
    return infer_geometry(array.name, array.shape)


def infer_geometry(name: str, shape: tuple[int, ...]) -> Geometry:
    """As `find_geometry`, of N images in an array of that shape."""
    if len(shape) == 2:
        return _find_flat_geometry(name, shape)
    if len(shape) == 3 and 0 not in shape[1:]:
        if shape[2] in (3, 4) and min(shape[:2]) > _MANY:
            raise _shape_error(name, shape, "which may be one image; a single image is no dataset")
        return Geometry("HW", shape[1], shape[2], 1)
    if len(shape) != 4 or 0 in shape[1:]:
        raise _shape_error(name, shape)
    first, last = shape[1], shape[3]
    if last in (1, 3) or (last <= MAX_CHANNELS and first > MAX_CHANNELS):
        return Geometry("HWC", shape[1], shape[2], last)
    if first <= MAX_CHANNELS and last > _MANY:
        return Geometry("CHW", shape[2], shape[3], first)
    raise _shape_error(name, shape, "where the axis of the channels is not certain")


def encode_rows(array: Array, meter: Meter, find_factor: Callable[[], float | None]) -> Iterator[bytes]:
    """Yield each image as an encoded file; find_factor: of the numbers that are not uint8. Raises PackError."""
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise PackError("wrong_dtype", f"{array.name} must be uint8 or other numbers, and are {array.dtype}.")
    geometry = find_geometry(array)
    meter.add_images(array.shape[0])
    if geometry.height * geometry.width > meter.limits.image_pixels or array.row_bytes > _MAX_ROW_BYTES:
        raise PackError("too_many_pixels", f"An image may have at most {meter.limits.image_pixels:,} pixels.")
    factor = _FACTORS.get(array.dtype.kind + str(array.dtype.itemsize)) or find_factor()
    for row in _iterate_rows(array):
        pixels = geometry.arrange(row)
        if factor is not None:
            pixels = pixels if array.dtype == np.uint8 else np.rint(pixels * factor).astype(np.uint8)
        yield encode(pixels)


def encode(pixels: NDArray[Any]) -> bytes:
    """Return H×W or H×W×C pixels as an encoded file."""
    kept = pixels.dtype.itemsize <= 4
    return decode.encode_array(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("=") if kept else np.float32))


def _find_flat_geometry(name: str, shape: tuple[int, ...]) -> Geometry:
    side = math.isqrt(shape[1])
    if side < _MIN_FLAT_SIDE or side * side != shape[1]:
        raise _shape_error(name, shape, "whose rows are no square of grey pixels")
    return Geometry("HW", side, side, 1)


def _shape_error(name: str, shape: tuple[int, ...], reason: str = "") -> PackError:
    sides = "×".join(map(str, shape)) or "one value"
    return PackError("wrong_shape", f"{name} must be {SHAPES}, and are {sides}{reason and ', '}{reason}.")


def _iterate_rows(array: Array) -> Iterator[NDArray[Any]]:
    stream = array.open()
    for _ in range(array.shape[0]):
        yield np.frombuffer(read_row(stream, array.row_bytes), array.dtype)


def find_factor(arrays: Iterable[Array], reading: Reading) -> float | None:
    """Return what takes the values of all arrays of an upload to 0…255; None where they are of more than 8 bits.

    Arrays of bytes beside the others show that these run to 255 too. Raises PackError.
    """
    if reading.low is not None:
        return None
    low, high, has_bytes = math.inf, -math.inf, False
    for array in arrays:
        if array.dtype.kind not in "buif" or array.dtype in (np.uint8, np.bool_):
            has_bytes |= array.dtype == np.uint8
            continue
        for row in _iterate_rows(array):
            if not np.isfinite(row).all():
                raise PackError("not_finite", f"{array.name} hold values that are infinite or not a number.")
            low, high = min(low, float(row.min())), max(high, float(row.max()))
    if low < 0 or high > 255:
        return None
    if high <= 1:
        return 255
    return 1 if high >= _DULL or has_bytes else None
