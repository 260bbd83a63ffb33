"""A packed dataset, opened for reading: labels and splits in memory, images on demand.

Written by `ssl_core.data.pack`. Rows are numbered in the order of its `images.arrow`; everything that chooses rows does so
by counters, from a seed.
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
from ssl_core.data.sampling import Rows, draw_evenly

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """An opened dataset; cheap to open, and nothing is decoded before it is asked for."""

    directory: Path
    report: dict[str, Any]  # dataset.json
    labels: Rows  # N; -1 is unlabelled
    splits: NDArray[np.int8]  # N; positions in SPLITS
    sizes: Rows  # N×2: heights and widths
    uniform: NDArray[np.uint8] | None  # memory-mapped N×H×W×3, when all images share one small size
    _encoded: pa.ChunkedArray

    @classmethod
    def open(cls, directory: Path) -> "Dataset":
        """Open the folder. Raises OSError or ValueError when it holds no packed dataset."""
        report = json.loads((directory / "dataset.json").read_text())
        # Not closed: the columns below are views of the mapped file.
        table = pa.ipc.open_file(pa.memory_map(str(directory / "images.arrow"))).read_all()
        pixels = report.get("pixels")
        return cls(
            directory=directory,
            report=report,
            labels=table["label"].fill_null(-1).to_numpy().astype(np.int64),
            splits=table["split"].to_numpy().astype(np.int8),
            sizes=np.stack([table["height"].to_numpy(), table["width"].to_numpy()], 1).astype(np.int64),
            uniform=np.load(directory / pixels["file"], mmap_mode="r") if pixels else None,
            _encoded=table["image"],
        )

    @property
    def classes(self) -> list[str]:
        return list(self.report["classes"])

    @property
    def class_names(self) -> list[str]:
        """A name for every label; a label beyond `classes` is named by its number."""
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
        """Return the rows of a split in ascending order; of a `subset`, as many of each class as there can be."""
        rows = np.flatnonzero(self.splits == SPLITS.index(split))
        if subset is None or subset >= len(rows):
            return rows
        return np.sort(rows[draw_evenly(self.labels[rows], subset, rng.stream(seed, rng.Stream.SUBSET))])

    def select_labelled(self, rows: Rows) -> Rows:
        """Return those of the rows that have a label."""
        return rows[self.labels[rows] >= 0]

    def read_image(self, row: int) -> NDArray[np.uint8]:
        """Return the image, uint8 H×W×3."""
        if self.uniform is not None:
            return np.asarray(self.uniform[row])
        # What was packed is read: how large an image may be was for ingestion to say.
        return decode(self._encoded[row].as_py(), max_pixels=math.inf)


def sample_rows(dataset: Dataset, rows: Rows, most: int, stream: int) -> Rows:
    """Return the rows, or `most` of them drawn evenly from the classes."""
    return rows if len(rows) <= most else rows[draw_evenly(dataset.labels[rows], most, stream)]


def select_labels(dataset: Dataset, rows: Rows) -> Tensor:
    """Return the rows' labels as int64 N."""
    return torch.from_numpy(dataset.labels[rows])
