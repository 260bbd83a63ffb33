"""NumPy archives: reads the arrays `images` and, optionally, `labels` of an npz file as a stream of images.

Headers are validated before data is read; nothing is unpickled.
"""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from ssl_core.data import decode
from ssl_core.data.items import Item, PackError
from worker.uploads.limits import Meter

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_LABEL_BYTES = 4096
_MAX_HEADER = 2**16  # bytes
_SHAPES = "N×H×W, N×H×W×1 or N×H×W×3"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError)


def read(archive: zipfile.ZipFile, meter: Meter) -> Iterator[Item]:
    """Yield the images as PNG, all in the training split. Raises PackError."""
    if "images.npy" not in archive.namelist():
        raise PackError("no_images", "The npz archive has no array called images.")
    try:
        yield from _read_items(archive, meter)
    except _DAMAGE as error:
        raise PackError("corrupt_archive", "The npz archive is damaged.") from error


def _read_items(archive: zipfile.ZipFile, meter: Meter) -> Iterator[Item]:
    with _open_array(archive, "images") as stream:
        header = _read_header(stream, "images")
        _check_images(header, meter)
        labels = _read_labels(archive, header.shape[0], meter)
        shape = header.shape[1:3] if header.shape[3:] in ((), (1,)) else header.shape[1:]
        size = int(np.prod(header.shape[1:]))
        for number in range(header.shape[0]):
            pixels = np.frombuffer(_read_exactly(stream, size, meter), np.uint8).reshape(shape)
            yield Item(f"images/{number:08d}", decode.encode_png(pixels), labels[number], "train")


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _open_array(archive: zipfile.ZipFile, array: str) -> IO[bytes]:
    entry = archive.getinfo(f"{array}.npy")
    if entry.flag_bits & 0x1:
        raise PackError("encrypted", "The archive is encrypted; pack the images without a password.")
    if entry.compress_type not in _METHODS:
        raise PackError("unsupported_compression", f"The array {array} is neither stored nor deflated.")
    try:
        return archive.open(entry)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        raise PackError("corrupt_archive", "The npz archive is damaged.") from error


class _BoundedStream:
    """Limits the size of one read: NumPy reads a header whole before it checks its length."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise ValueError("the header is too long")
        return self._stream.read(size)


def _read_header(stream: IO[bytes], array: str) -> _Header:
    try:
        version = np.lib.format.read_magic(stream)
        bounded: Any = _BoundedStream(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(bounded)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(bounded)
        else:
            raise ValueError("an array with named fields")
    except (MemoryError, *_DAMAGE):
        raise
    except Exception as error:  # the parser of the header's Python literal raises many types
        raise PackError("corrupt_archive", f"The header of the array {array} cannot be read.") from error
    if dtype.hasobject:
        raise PackError("object_array", f"The array {array} holds Python objects, which are not supported.")
    if any(side < 0 for side in shape):
        raise PackError("wrong_shape", f"The array {array} has a negative size.")
    if fortran and len(shape) > 1:
        raise PackError("wrong_shape", f"The array {array} is in Fortran order; use np.ascontiguousarray.")
    return _Header(tuple(shape), dtype)


def _check_images(header: _Header, meter: Meter) -> None:
    shape, limits = header.shape, meter.limits
    if header.dtype != np.uint8:
        raise PackError("wrong_dtype", f"images must be uint8, and are {header.dtype}.")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape[1:3]:
        raise PackError("wrong_shape", f"images must be {_SHAPES}, and are {'×'.join(map(str, shape))}.")
    meter.check_images(shape[0])
    if shape[1] * shape[2] > limits.image_pixels:
        raise PackError("too_many_pixels", f"An image may have at most {limits.image_pixels:,} pixels.")


def _read_labels(archive: zipfile.ZipFile, count: int, meter: Meter) -> list[str | int | None]:
    if "labels.npy" not in archive.namelist():
        return [None] * count
    with _open_array(archive, "labels") as stream:
        header = _read_header(stream, "labels")
        if header.dtype.kind not in "iuUS" or header.dtype.itemsize > _MAX_LABEL_BYTES:
            raise PackError("wrong_dtype", f"labels must be integers or strings, and are {header.dtype}.")
        if header.shape not in ((count,), (count, 1)):
            shape = "×".join(map(str, header.shape)) or "one value"
            raise PackError("labels_length", f"There are {count:,} images, and labels of shape {shape}.")
        data = _read_exactly(stream, count * header.dtype.itemsize, meter)
    try:
        values = np.frombuffer(data, header.dtype).tolist()
    except (ValueError, SystemError) as error:  # an invalid code point
        raise PackError("corrupt_archive", "The labels hold text that is not valid Unicode.") from error
    return [value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value for value in values]


def _read_exactly(stream: IO[bytes], size: int, meter: Meter) -> bytes:
    """Return exactly `size` bytes. Raises PackError when the stream has fewer."""
    parts = []
    while size:
        chunk = stream.read(min(size, 2**20))
        if not chunk:
            raise PackError("truncated_archive", "An array in the npz archive is shorter than its header declares.")
        meter.add_bytes(len(chunk))
        parts.append(chunk)
        size -= len(chunk)
    return b"".join(parts)
