"""Packed dataset, opened for reading: labels and splits in memory, images decoded on access.

Written by `ssl_core.data.pack`. Rows are numbered in the order of `images.arrow`; rows are sampled by counter-based
random numbers, from a seed.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import rng
from ssl_core.checksums import blocks, document
from ssl_core.checksums.blocks import CheckedFile
from ssl_core.data import encoded_images
from ssl_core.data.decode import decode
from ssl_core.data.encoded_images import EncodedImages
from ssl_core.data.formats.value_range import FULL, ValueRange
from ssl_core.data.sampling import Rows, draw_evenly
from ssl_core.data.split_names import SPLITS


@dataclass(frozen=True)
class Dataset:
    """A packed dataset. Opening decodes no image and copies no column."""

    directory: Path
    report: dict[str, Any]  # dataset.json
    pixels: NDArray[np.uint8] | None  # memory-mapped N×H×W×C, when all images share one small size
    _table: pa.Table  # memory-mapped
    _encoded: EncodedImages
    _pixels_file: CheckedFile | None  # None: of a dataset without checksums

    @classmethod
    def open(cls, directory: Path) -> "Dataset":
        """Open a folder and check all but its images, which are checked as they are read.

        Raises OSError or ValueError when it holds no packed dataset, and Corrupt.
        """
        report = document.read(directory / "dataset.json")
        record = report.get("blocks")
        files = {name: blocks.open_file(directory, record, name) for name in record["sizes"]} if record else {}
        table, encoded = encoded_images.open_table(directory / "images.arrow", files.get("images.arrow"))
        array = report.get("pixels")
        if array and (pixels_file := files.get(array["file"])) is not None:
            pixels_file.check(0, 1)  # the header
        return cls(
            directory=directory,
            report=report,
            pixels=np.load(directory / array["file"], mmap_mode="r") if array else None,
            _table=table,
            _encoded=encoded,
            _pixels_file=files.get(array["file"]) if array else None,
        )

    @cached_property
    def labels(self) -> Rows:
        """N; -1 is unlabelled."""
        return self._table["label"].fill_null(-1).to_numpy().astype(np.int64)

    @cached_property
    def splits(self) -> NDArray[np.int8]:
        """N; positions in SPLITS."""
        return self._table["split"].to_numpy().astype(np.int8)

    @cached_property
    def sizes(self) -> Rows:
        """N×2: heights and widths."""
        return np.stack([self._table["height"].to_numpy(), self._table["width"].to_numpy()], 1).astype(np.int64)

    @property
    def classes(self) -> list[str]:
        return list(self.report["classes"])

    @property
    def class_names(self) -> list[str]:
        """One name per label; a label beyond `classes` is named by its number."""
        count = max(len(self.classes), int(self.labels.max(initial=-1)) + 1)
        return [*self.classes, *map(str, range(len(self.classes), count))]

    @property
    def mean(self) -> list[float]:
        return list(self.report["mean"])

    @property
    def std(self) -> list[float]:
        return list(self.report["std"])

    @property
    def channels(self) -> int:
        """The number of channels of every image."""
        return len(self.report["mean"])

    @cached_property
    def value_range(self) -> ValueRange | None:
        """The values that are black and white in images of more than 8 bits; None when there are none."""
        return ValueRange.of(self.report["range"]) if "range" in self.report else FULL

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def indices(self, split: str, subset: int | None = None, seed: int = 0) -> Rows:
        """Return the rows of a split in ascending order; a `subset` is drawn evenly from the classes."""
        rows = np.flatnonzero(self.splits == SPLITS.index(split))
        if subset is None or subset >= len(rows):
            return rows
        return np.sort(rows[draw_evenly(self.labels[rows], subset, rng.stream(seed, rng.Stream.SUBSET))])

    def select_labelled(self, rows: Rows) -> Rows:
        """Return the rows that have a label."""
        return rows[self.labels[rows] >= 0]

    def read_names(self, rows: Rows) -> pa.ChunkedArray:
        """Return the paths in the upload of the rows' images, as strings; null where they were not kept."""
        if "name" not in self._table.column_names:
            return pa.chunked_array([pa.nulls(len(rows), pa.string())])
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:  # they ascend
            return self._table["name"].slice(int(rows[0]), len(rows))
        return self._table["name"].take(pa.array(rows))

    def describe(self, row: int) -> dict[str, Any]:
        """Return `{label, split, width, height, name}` of an image: None is unlabelled, a split a position in SPLITS.

        The name is the path in the upload.
        """
        return {name: self._table[name][row].as_py() for name in ("label", "split", "width", "height", "name")}

    def read_file(self, row: int) -> bytes:
        """Return an image as a file, as it came. Raises Corrupt."""
        return self._encoded.read(row)

    def read_image(self, row: int) -> NDArray[np.uint8]:
        """Return an image, uint8 H×W×C. Raises Corrupt."""
        if self.pixels is not None:
            self._check_pixels(np.array([row]))
            return np.asarray(self.pixels[row])
        # Ingestion has limited the image size already.
        return decode(self.read_file(row), max_pixels=math.inf, channels=self.channels, values=self.value_range)

    def read_pixels(self, rows: Rows, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return the images of the rows, uint8 N×H×W×C, in `out` if it is given; only with `pixels`. Raises Corrupt."""
        assert self.pixels is not None
        assert not len(rows) or 0 <= rows.min() <= rows.max() < len(self.pixels)
        self._check_pixels(rows)
        # With a mode that checks the rows, numpy takes them into a second array, and copies that to `out`.
        return np.asarray(np.take(self.pixels, rows, axis=0, out=out, mode="clip"))

    def _check_pixels(self, rows: Rows) -> None:
        file = self._pixels_file
        if file is None or file.is_checked or self.pixels is None:
            return
        image_bytes = math.prod(self.pixels.shape[1:])  # less than a block
        starts = file.size - self.pixels.size + rows * image_bytes
        ends = starts + image_bytes - 1
        file.check_blocks(np.union1d(starts // file.block_bytes, ends // file.block_bytes).tolist())


def sample_rows(dataset: Dataset, rows: Rows, limit: int, stream: int) -> Rows:
    """Return the rows, or `limit` of them drawn evenly from the classes."""
    return rows if len(rows) <= limit else rows[draw_evenly(dataset.labels[rows], limit, stream)]


def select_labels(dataset: Dataset, rows: Rows) -> Tensor:
    """Return the rows' labels as int64 N."""
    return torch.from_numpy(dataset.labels[rows])
