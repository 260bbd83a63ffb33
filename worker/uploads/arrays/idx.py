"""idx files, as MNIST and its relatives have them: big-endian arrays of up to four dimensions, often with gzip."""

import math
import struct

import numpy as np

from ssl_core.data.items import PackError
from worker.uploads import compressed, formats
from worker.uploads.arrays.array import Array, Unreadable
from worker.uploads.entries import HEAD, Stream, read_exactly
from worker.uploads.limits import Meter
from worker.uploads.shelf import Stored

_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read(stored: Stored, meter: Meter) -> Array | Unreadable:
    """Return the array of an idx file."""

    def open_file() -> Stream:
        return _open_file(stored, meter)

    try:
        shape, dtype = _read_header(open_file())
        if not _is_packed(stored) and stored.size < math.prod(shape) * dtype.itemsize:
            raise PackError("truncated_archive", f"{stored.name or 'The file'} is shorter than its header declares.")
    except PackError as error:
        return Unreadable(stored.name, error)

    def open_values() -> Stream:
        stream = open_file()
        _read_header(stream)
        return stream

    return Array(stored.name, shape, dtype, open_values)


def _open_file(stored: Stored, meter: Meter) -> Stream:
    packed = _is_packed(stored)
    stored.file.seek(0)
    return _Counted(compressed.open_stream(stored.file, "gz"), meter) if packed else stored.file


def _is_packed(stored: Stored) -> bool:
    stored.file.seek(0)
    return compressed.find_format(stored.file.read(HEAD)) == "gz"


class _Counted:
    def __init__(self, stream: Stream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._meter.add_bytes(len(data))
        return data


def _read_header(stream: Stream) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    magic = read_exactly(stream.read, 4)
    if not formats.is_idx(magic + bytes(4)) or magic[2] not in _DTYPES:
        raise PackError("corrupt_archive", "The header of an idx file cannot be read.")
    sides = read_exactly(stream.read, 4 * magic[3])
    if len(sides) < 4 * magic[3]:
        raise PackError("truncated_archive", "An idx file is shorter than its header declares.")
    return struct.unpack(f">{magic[3]}I", sides), np.dtype(_DTYPES[magic[2]])
