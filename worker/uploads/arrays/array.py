"""Array: its header, and its values as a stream. Headers are validated before data is read; nothing is unpickled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_core.data.items import PackError
from worker.uploads.entries import BadEntry, Stream, read_exactly

_MAX_HEADER = 2**16  # bytes


@dataclass(frozen=True, slots=True)
class Array:
    """An array in C order. open: returns a stream at its first value, whose `read` raises PackError."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: Callable[[], Stream]

    @property
    def row_bytes(self) -> int:
        """The size of one row, along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def describe_shape(self) -> str:
        return "×".join(map(str, self.shape)) or "one value"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An array whose header is damaged or of an unsupported form."""

    name: str
    error: PackError


def read_npy(name: str, open_file: Callable[[], Stream]) -> Array | Unreadable:
    """Return the array of an npy file. open_file: returns a stream at its first byte."""
    try:
        shape, dtype = _read_header(open_file(), name)
    except PackError as error:
        return Unreadable(name, error)

    def open_values() -> Stream:
        stream = open_file()
        _read_header(stream, name)
        return stream

    return Array(name, shape, dtype, open_values)


def read_row(stream: Stream, size: int) -> bytes:
    """Return exactly `size` bytes. Raises PackError when the stream has fewer."""
    try:
        data = read_exactly(stream.read, size)
    except BadEntry as error:
        raise PackError("corrupt_archive", f"An array is damaged: {error.bad.detail}") from error
    if len(data) < size:
        raise PackError("truncated_archive", "An array is shorter than its header declares.")
    return data


class _BoundedStream:
    """Limits the size of one read: NumPy reads a header whole before it checks its length."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise ValueError("the header is too long")
        return self._stream.read(size)


def _read_header(stream: Stream, array: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    bounded: Any = _BoundedStream(stream)
    try:
        version = np.lib.format.read_magic(bounded)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(bounded)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(bounded)
        else:
            raise ValueError("an array with named fields")
    except (MemoryError, PackError):
        raise
    except Exception as error:  # the parser of the header's Python literal raises many types
        raise PackError("corrupt_archive", f"The header of the array {array} cannot be read.") from error
    if dtype.hasobject:
        raise PackError("object_array", f"The array {array} holds Python objects, which are not supported.")
    if any(side < 0 for side in shape):
        raise PackError("wrong_shape", f"The array {array} has a negative size.")
    if fortran and len(shape) > 1:
        raise PackError("wrong_shape", f"The array {array} is in Fortran order; use np.ascontiguousarray.")
    return tuple(shape), dtype
