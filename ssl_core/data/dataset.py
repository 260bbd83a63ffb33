"""Packed dataset, opened for reading: labels and splits in memory, images decoded on access.

Written by `ssl_core.data.pack`. Rows are numbered in the order of `images.arrow`; rows are sampled by counter-based
random numbers, from a seed.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import rng
from ssl_core.data.decode import decode
from ssl_core.data.folder_layout import SPLITS
from ssl_core.data.sampling import Rows, draw_evenly


@dataclass(frozen=True)
class Dataset:
    """A packed dataset. Opening decodes no image."""

    directory: Path
    report: dict[str, Any]  # dataset.json
    labels: Rows  # N; -1 is unlabelled
    splits: NDArray[np.int8]  # N; positions in SPLITS
    sizes: Rows  # N×2: heights and widths
    pixels: NDArray[np.uint8] | None  # memory-mapped N×H×W×3, when all images share one small size
    _encoded: pa.ChunkedArray

    @classmethod
    def open(cls, directory: Path) -> "Dataset":
        """Open a folder. Raises OSError or ValueError when it holds no packed dataset."""
        report = json.loads((directory / "dataset.json").read_text())
        # Not closed: the columns below are views of the mapped file.
        table = pa.ipc.open_file(pa.memory_map(str(directory / "images.arrow"))).read_all()
        array = report.get("pixels")
        return cls(
            directory=directory,
            report=report,
            labels=table["label"].fill_null(-1).to_numpy().astype(np.int64),
            splits=table["split"].to_numpy().astype(np.int8),
            sizes=np.stack([table["height"].to_numpy(), table["width"].to_numpy()], 1).astype(np.int64),
            pixels=np.load(directory / array["file"], mmap_mode="r") if array else None,
            _encoded=table["image"],
        )

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

    def __len__(self) -> int:
        return len(self.labels)

    def indices(self, split: str, subset: int | None = None, seed: int = 0) -> Rows:
        """Return the rows of a split in ascending order; a `subset` is drawn evenly from the classes."""
        rows = np.flatnonzero(self.splits == SPLITS.index(split))
        if subset is None or subset >= len(rows):
            return rows
        return np.sort(rows[draw_evenly(self.labels[rows], subset, rng.stream(seed, rng.Stream.SUBSET))])

    def select_labelled(self, rows: Rows) -> Rows:
        """Return the rows that have a label."""
        return rows[self.labels[rows] >= 0]

    def read_image(self, row: int) -> NDArray[np.uint8]:
        """Return an image, uint8 H×W×3."""
        if self.pixels is not None:
            return np.asarray(self.pixels[row])
        # Ingestion has limited the image size already.
        return decode(self._encoded[row].as_py(), max_pixels=math.inf)


def sample_rows(dataset: Dataset, rows: Rows, limit: int, stream: int) -> Rows:
    """Return the rows, or `limit` of them drawn evenly from the classes."""
    return rows if len(rows) <= limit else rows[draw_evenly(dataset.labels[rows], limit, stream)]


def select_labels(dataset: Dataset, rows: Rows) -> Tensor:
    """Return the rows' labels as int64 N."""
    return torch.from_numpy(dataset.labels[rows])
