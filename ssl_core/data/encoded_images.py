"""Encoded images: the image files in a dataset's `images.arrow`, mapped into memory, each checked before it is read."""

from bisect import bisect_right
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_core.checksums.blocks import CheckedFile


class EncodedImages:
    """The column `image`, by row. `file` has its checksums, `base` is the address of the mapped file's first byte."""

    def __init__(self, column: pa.ChunkedArray, file: CheckedFile | None = None, base: int = 0) -> None:
        self._column = column
        self._file = file
        self._first_rows: list[int] = []  # of each chunk
        self._chunks: list[tuple[int, NDArray[np.int64]]] = []  # the first image's place in the file; n+1 offsets to it
        row = 0
        for chunk in column.chunks if file is not None else ():
            _, offsets, data = chunk.buffers()
            self._first_rows.append(row)
            self._chunks.append((data.address - base, np.frombuffer(offsets, np.int64, len(chunk) + 1)))
            row += len(chunk)

    def read(self, row: int) -> bytes:
        """Return an image file. Raises Corrupt."""
        if self._file is not None and not self._file.is_checked:
            chunk = bisect_right(self._first_rows, row) - 1
            place, offsets = self._chunks[chunk]
            first = int(row) - self._first_rows[chunk]
            self._file.check(place + int(offsets[first]), place + int(offsets[first + 1]))
        data: bytes = self._column[row].as_py()
        return data


def open_table(path: Path, file: CheckedFile | None) -> tuple[pa.Table, EncodedImages]:
    """Return the table and its images. All bytes but the images' are checked.

    Raises OSError and ValueError when the file is none of ours, and Corrupt.
    """
    source = pa.memory_map(str(path))  # not closed: the columns are views of the mapped file
    if file is None:
        table = pa.ipc.open_file(source).read_all()
        return table, EncodedImages(table["image"])
    file.check(0, 1)
    file.check(file.size - 1, file.size)
    try:
        table = pa.ipc.open_file(source).read_all()
        source.seek(0)
        base = source.read_buffer(file.size).address
        _check_outside_images(table["image"], file, base)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        file.check_all()  # of a damaged file, the damage is the error
        raise
    return table, EncodedImages(table["image"], file, base)


def _check_outside_images(column: pa.ChunkedArray, file: CheckedFile, base: int) -> None:
    """Check every byte that is not an image's: the layout, the other columns, and where images start and end."""
    end = 0
    for chunk in column.chunks:
        data = chunk.buffers()[2]
        file.check(end, data.address - base)
        end = data.address - base + data.size
    file.check(end, file.size)
