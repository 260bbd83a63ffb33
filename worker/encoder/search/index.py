"""An index on disk: the vectors of a dataset, their rows' labels, splits and paths, and the graph of neighbours.

    index.json        what it is of, its files with their SHA-256, and the report; with a checksum of its own
    vectors.npy       N×D float32, of unit length
    rows.npy          N int64, the rows of the dataset, ascending; elsewhere a row is a position among these
    labels.npy        N int32, positions in `classes`, -1 without a label       splits.npy   N int8, positions in SPLITS
    paths.bin         the paths in the upload, UTF-8, one behind the other      path_ends.npy   N int64
    neighbours.npy    N×K int32          similarities.npy   N×K float32
    lists.faiss       inverted lists, if the index is approximate

Written by `worker.indexes.build`; opened by the encoder, where every file is mapped into memory, not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import UnknownRow
from ssl_core.checksums import document
from ssl_core.data.split_names import SPLITS
from ssl_core.errors import Corrupt, Fault
from worker.encoder.search.inverted_lists import InvertedLists
from worker.encoder.search.label_transfer import Labels
from worker.encoder.search.nearest import Mask, Rows, Vectors, find_nearest
from worker.encoder.search.neighbours import Graph

FILE, FORMAT = "index.json", 1
ROWS, VECTORS, LABELS, SPLIT_NUMBERS, PATHS, PATH_ENDS = "rows", "vectors", "labels", "splits", "paths.bin", "path_ends"
NEIGHBOURS, SIMILARITIES, LISTS = "neighbours", "similarities", "lists.faiss"


@dataclass(frozen=True)
class Index:
    """An open index."""

    about: dict[str, Any]  # index.json
    rows: Rows
    vectors: Vectors
    labels: Labels
    splits: NDArray[np.int8]
    neighbours: Graph
    similarities: Vectors
    lists: InvertedLists | None
    _paths: NDArray[np.uint8]
    _path_ends: Rows

    @classmethod
    def open(cls, folder: Path) -> "Index":
        """Open a folder. Raises Corrupt when a file is missing, damaged at its head or of another size."""
        about = document.read(folder / FILE)
        try:
            if about["format"] != FORMAT or any(
                (folder / name).stat().st_size != file["size_bytes"] for name, file in about["files"].items()
            ):
                raise Corrupt(FILE)
            arrays = {
                name: _map(folder / f"{name}.npy")
                for name in (ROWS, VECTORS, LABELS, SPLIT_NUMBERS, NEIGHBOURS, SIMILARITIES, PATH_ENDS)
            }
            paths = np.memmap(folder / PATHS, np.uint8, "r") if arrays[PATH_ENDS][-1] else np.empty(0, np.uint8)
            lists = InvertedLists.open(folder / LISTS, about["probes"]) if about["probes"] else None
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise Corrupt(FILE) from error
        return cls(
            about,
            arrays[ROWS],
            arrays[VECTORS],
            arrays[LABELS],
            arrays[SPLIT_NUMBERS],
            arrays[NEIGHBOURS],
            arrays[SIMILARITIES],
            lists,
            paths,
            arrays[PATH_ENDS],
        )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def classes(self) -> list[str]:
        return list(self.about["classes"])

    @property
    def size_bytes(self) -> int:
        """Of the files that are mapped."""
        return sum(file["size_bytes"] for file in self.about["files"].values())

    def search(
        self, queries: Vectors, k: int, allowed: Mask | None = None, own: Rows | None = None
    ) -> tuple[Rows, Vectors]:
        """Return the rows M×k that are nearest to M queries, and their similarities, as `find_nearest` does."""
        if self.lists is None:
            return find_nearest(self.vectors, queries, k, allowed, own)
        return self.lists.search(self.vectors, queries, k, allowed, own)

    def choose(self, split: str | None, label: int | None) -> Mask | None:
        """Return which rows are of a split and a label; None: all are."""
        chosen = None if split is None else np.asarray(self.splits == SPLITS.index(split))
        if label is None:
            return chosen
        labelled = np.asarray(self.labels == label)
        return labelled if chosen is None else chosen & labelled

    def find(self, rows: Sequence[int], pointer: str) -> Rows:
        """Return the positions of these rows of the dataset. Raises UnknownRow, with the pointer."""
        asked = np.array(rows, np.int64)
        places = np.searchsorted(self.rows, asked)
        known = self.rows[np.minimum(places, len(self.rows) - 1)] == asked
        if not known.all():
            detail = f"The index has no image of row {asked[~known][0]}."
            raise UnknownRow(detail, errors=[Fault(pointer=pointer, code="unknown_row", detail=detail)])
        return places

    def describe(self, row: int) -> dict[str, Any]:
        """Return `{row, label, split, path}` of a position: the row of the dataset, the label a name or None."""
        start = int(self._path_ends[row - 1]) if row else 0
        path = self._paths[start : int(self._path_ends[row])].tobytes().decode()
        label = int(self.labels[row])
        return {
            "row": int(self.rows[row]),
            "label": self.about["classes"][label] if label >= 0 else None,
            "split": SPLITS[self.splits[row]],
            "path": path,
        }


def _map(path: Path) -> Any:
    """Map an array, private to the process: torch takes no array that cannot be written."""
    return np.load(path, mmap_mode="c")
