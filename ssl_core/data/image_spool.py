"""Image spool: images in order of arrival, their bytes in an unnamed temporary file and their facts in memory.

Takes about 250 bytes of memory per image, so that millions fit; sorting reads the file in another order.
"""

import hashlib
import math
import os
import tempfile
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_core.data import clean_names, decode
from ssl_core.data.formats.samples import Samples, fit_channels
from ssl_core.data.formats.value_range import ValueRange
from ssl_core.data.split_names import Split

SMALL_SIDE = 64  # a dataset of one image size up to this gets a pixel array
_PIXELS_PER_SUM = 2**18


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The results of decoding an image. `sums`: of the values and of their squares, per channel.

    Of a deep image, sums and pixels are zeros until the dataset's range is known.
    """

    width: int
    height: int
    notes: frozenset[str]
    sums: tuple[int, ...]  # 2·C
    sha256: bytes
    pixels: bytes | None  # H×W×C when small
    deep: Samples | None = None
    pages: int = 1  # of the file

    @property
    def channels(self) -> int:
        return len(self.sums) // 2


def inspect_image(
    data: bytes, max_pixels: int, count_pixels: decode.CountPixels | None = None, channels: int | None = None
) -> ImageFacts:
    """Decode an image and return its facts. Raises BadImage, and what `count_pixels` raises.

    channels: of every image; None: as many as it has, with greys as RGB.
    """
    samples, notes = decode.load(data, max_pixels, count_pixels)
    digest = hashlib.sha256(data).digest()
    pages = decode.count_pages(data) if "animated" in notes else 1
    if not samples.is_deep:
        return _facts_of(decode.to_pixels(samples, channels, None), notes, digest, pages)
    height, width, have = samples.values.shape
    shape = fit_channels(np.zeros((1, 1, have), np.uint8), channels, is_colour=samples.is_colour).shape
    zeros = bytes(height * width * shape[2]) if _is_small(height, width) else None
    return ImageFacts(width, height, frozenset(notes), (0,) * 2 * shape[2], digest, zeros, samples, pages)


def _facts_of(pixels: NDArray[np.uint8], notes: set[str], digest: bytes, pages: int) -> ImageFacts:
    height, width, _ = pixels.shape
    small = pixels.tobytes() if _is_small(height, width) else None
    return ImageFacts(width, height, frozenset(notes), _sum_channels(pixels), digest, small, pages=pages)


def _is_small(height: int, width: int) -> bool:
    return height <= SMALL_SIDE and width <= SMALL_SIDE


class ImageSpool:
    """Rows in order of arrival. Its files have no name, so that they vanish with the process."""

    def __init__(self, directory: Path) -> None:
        self._bytes = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - both live until `close`
        self._pixels = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        self.names: list[str] = []
        self.labels: list[str | int | None] = []
        self.splits: list[Split | None] = []
        self.sizes: Counter[tuple[int, int]] = Counter()
        self._ends = array("Q", [0])
        self._shapes = array("I")
        self._sums = array("Q")
        self._sha256 = bytearray()
        self._folded = bytearray()
        self._notes = array("B")
        self._uniform = True
        self.channels: Counter[int] = Counter()
        self._deep = bytearray()
        self._stride = 0  # of `_sums`

    def __len__(self) -> int:
        return len(self.names)

    def append(self, name: str, label: str | int | None, split: Split | None, data: bytes, facts: ImageFacts) -> None:
        self.names.append(name)
        self.labels.append(label)
        self.splits.append(split)
        self._bytes.write(data)
        self._ends.append(self._ends[-1] + len(data))
        self._shapes.extend((facts.width, facts.height))
        self.channels[facts.channels] += 1
        self._stride = self._stride or len(facts.sums)
        # A dataset of several numbers of channels is refused, so that its sums are never read.
        self._sums.extend(facts.sums if len(facts.sums) == self._stride else (0,) * self._stride)
        self._deep.append(facts.deep is not None)
        self._sha256 += facts.sha256
        self._folded += hashlib.blake2b(clean_names.fold_name(name).encode(), digest_size=16).digest()
        self._notes.append(sum(1 << bit for bit, note in enumerate(decode.NOTES) if note in facts.notes))
        self._append_pixels(facts)

    def rescale(self, values: ValueRange, channels: int) -> None:
        """Compute the sums and pixels of the deep images, which `append` has left out, by their range."""
        for row in np.flatnonzero(np.frombuffer(self._deep, np.uint8)).tolist():
            pixels = decode.decode(self.read_image(row), math.inf, channels=channels, values=values)
            self._sums[self._stride * row : self._stride * (row + 1)] = array("Q", _sum_channels(pixels))
            if self.small_size:
                _write_exactly(self._pixels.fileno(), row * pixels.size, pixels.tobytes())

    def close(self) -> None:
        try:
            self._bytes.close()
        finally:  # closing flushes, and fails on a full disk
            self._pixels.close()

    def flush(self) -> None:
        """Make the appended rows readable by `read_image` and `read_small_image`."""
        self._bytes.flush()
        self._pixels.flush()

    @property
    def small_size(self) -> tuple[int, int] | None:
        """The width and height that all images share, when both are small."""
        return next(iter(self.sizes)) if self._uniform and self.sizes else None

    def read_image(self, row: int) -> bytes:
        start, end = self._ends[row], self._ends[row + 1]
        return _read_exactly(self._bytes.fileno(), start, end - start)

    def image_bytes(self, row: int) -> int:
        return self._ends[row + 1] - self._ends[row]

    def read_small_image(self, row: int) -> bytes:
        """Return the pixels, H×W×C; valid only when there is a `small_size`."""
        width, height = self.shape(row)
        size = width * height * self._stride // 2
        return _read_exactly(self._pixels.fileno(), row * size, size)

    def shape(self, row: int) -> tuple[int, int]:
        """Return width and height."""
        return self._shapes[2 * row], self._shapes[2 * row + 1]

    def sha256(self, row: int) -> bytes:
        return bytes(self._sha256[32 * row : 32 * row + 32])

    def count_notes(self, rows: NDArray[np.int64]) -> dict[str, int]:
        """Return the number of the rows with each note."""
        bits = np.frombuffer(self._notes, np.uint8)[rows]
        return {note: int(np.count_nonzero(bits & (1 << bit))) for bit, note in enumerate(decode.NOTES)}

    def sum_moments(self, rows: NDArray[np.int64]) -> tuple[int, list[int], list[int]]:
        """Return, over all pixels of the rows, their number and each channel's sum and sum of squares. Exact."""
        shapes = np.frombuffer(self._shapes, np.uint32).reshape(-1, 2)[rows].astype(np.uint64)
        sums = np.frombuffer(self._sums, np.uint64).reshape(-1, self._stride)[rows].sum(axis=0)
        count, half = int((shapes[:, 0] * shapes[:, 1]).sum()), self._stride // 2
        return count, [int(s) for s in sums[:half]], [int(s) for s in sums[half:]]

    def count_distinct(self, rows: NDArray[np.int64]) -> int:
        """Return the number of distinct images among the rows, by SHA-256."""
        digests = np.frombuffer(self._sha256, "S1").reshape(-1, 32)[rows]
        return len(np.unique(np.ascontiguousarray(digests).view("V32")))

    def find_duplicate_names(self) -> list[int]:
        """Return the rows whose folded name is that of an earlier row."""
        digests = np.frombuffer(self._folded, np.uint64).reshape(-1, 2)
        order = np.lexsort((np.arange(len(digests)), digests[:, 1], digests[:, 0]))
        same = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
        return sorted(int(row) for row in order[1:][same])

    def _append_pixels(self, facts: ImageFacts) -> None:
        self.sizes[facts.width, facts.height] += 1
        if not self._uniform:
            return
        if facts.pixels is None or len(self.sizes) > 1 or len(self.channels) > 1:
            self._uniform = False
            self._pixels.seek(0)
            self._pixels.truncate()
            return
        self._pixels.write(facts.pixels)


def _sum_channels(pixels: NDArray[np.uint8]) -> tuple[int, ...]:
    channels = pixels.shape[2]
    flat = pixels.reshape(-1, channels)
    total = np.zeros(2 * channels, np.uint64)
    for start in range(0, len(flat), _PIXELS_PER_SUM):
        # Channel by channel: adding along the long axis is several times faster.
        values = np.ascontiguousarray(flat[start : start + _PIXELS_PER_SUM].T).astype(np.uint32)
        total[:channels] += values.sum(axis=1, dtype=np.uint64)
        total[channels:] += (values * values).sum(axis=1, dtype=np.uint64)
    return tuple(int(value) for value in total)


def _read_exactly(file: int, start: int, size: int) -> bytes:
    data = os.pread(file, size, start)
    if len(data) != size:
        raise OSError(f"read {len(data)} of {size} bytes of the spool")
    return data


def _write_exactly(file: int, start: int, data: bytes) -> None:
    if os.pwrite(file, data, start) != len(data):
        raise OSError("the spool was not written in full")
