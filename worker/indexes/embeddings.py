"""Embeddings of a dataset, as a job leaves them: shards of vectors, each with a table of its rows.

embeddings.json            model, layer, dim, rows and the list of shards
embeddings-00000.npy       vectors, float32 or float16, in the order of the dataset
embeddings-00000.parquet   row, path, label and split of each
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssl_core.checksums import document
from ssl_core.data.split_names import SPLITS
from ssl_core.errors import Corrupt
from worker.encoder.search.label_transfer import Labels
from worker.encoder.search.nearest import Rows, Vectors, normalise

LIST = "embeddings.json"
_READ = 8192  # vectors at a time
_FIELDS = ("dataset", "model", "layer", "dim", "rows", "shards")


class BadEmbeddings(Exception):
    """The embeddings cannot be indexed. `code` is that of the job's error."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class StoredFile:
    """A stored file, and the SHA-256 that was recorded of it."""

    path: Path
    sha256: str

    def check(self) -> Path:
        """Return the path. Raises Corrupt when the file does not have its SHA-256, OSError when it cannot be read."""
        with self.path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                raise Corrupt(self.path.name)
        return self.path


@dataclass(frozen=True)
class Images:
    """The rows of the dataset, ascending; labels are positions in `classes`, or -1, and splits positions in SPLITS."""

    rows: Rows
    paths: list[str]
    labels: Labels
    splits: NDArray[np.int8]
    classes: list[str]


class Embeddings:
    """The embeddings of one job, whose files are checked as they are read."""

    def __init__(self, files: Mapping[str, StoredFile], dataset: Path | None) -> None:
        """files: by name. dataset: its folder, which has the names of classes that are given as numbers.

        Raises BadEmbeddings, Corrupt and OSError.
        """
        self._files = files
        self._dataset = dataset
        self.about: dict[str, Any] = _parse(self._find(LIST).check())
        self.rows, self.dim = int(self.about["rows"]), int(self.about["dim"])
        if not self.rows or sum(shard["rows"] for shard in self.about["shards"]) != self.rows:
            raise BadEmbeddings("bad_embeddings", f"{LIST} names no rows, or other ones than its shards have.")

    def read_vectors(self) -> Iterator[Vectors]:
        """Yield the vectors, some at a time, with unit length. Raises BadEmbeddings, Corrupt and OSError."""
        for shard in self.about["shards"]:
            array = np.load(self._find(shard["npy"]).check(), mmap_mode="r")
            if array.shape != (shard["rows"], self.dim):
                raise BadEmbeddings("bad_embeddings", f"{shard['npy']} has the shape {array.shape}.")
            for start in range(0, len(array), _READ):
                part = np.asarray(array[start : start + _READ], np.float32)
                if not np.isfinite(part).all():
                    row = shard["first_row"] + start + int(np.flatnonzero(~np.isfinite(part).all(1))[0])
                    raise BadEmbeddings("not_finite", f"The embedding of row {row} has values that are not finite.")
                yield normalise(part)

    def read_images(self) -> Images:
        """Return what is known of the rows. Raises BadEmbeddings, Corrupt and OSError."""
        columns = ["row", "path", "label", "split"]
        tables = [self._read_table(shard, columns) for shard in self.about["shards"]]
        table = pa.concat_tables(tables)
        labels, classes = self._number_labels(table["label"])
        splits = [SPLITS.index(split) if isinstance(split, str) else split for split in table["split"].to_pylist()]
        paths = [path or "" for path in table["path"].to_pylist()]
        rows = table["row"].to_numpy().astype(np.int64)
        if rows[0] < 0 or (np.diff(rows) <= 0).any():
            raise BadEmbeddings("bad_embeddings", "The rows are not in the order of the dataset.")
        return Images(rows, paths, labels, np.array(splits, np.int8), classes)

    def _read_table(self, shard: Mapping[str, Any], columns: list[str]) -> pa.Table:
        path = self._find(shard["parquet"]).check()
        try:
            table = pq.read_table(path, columns=columns)
        except pa.ArrowInvalid as error:
            raise BadEmbeddings("bad_embeddings", f"{shard['parquet']} does not have {', '.join(columns)}.") from error
        if table.num_rows != shard["rows"]:
            raise BadEmbeddings("bad_embeddings", f"{shard['parquet']} has {table.num_rows} rows.")
        return table

    def _number_labels(self, column: pa.ChunkedArray) -> tuple[Labels, list[str]]:
        values = column.to_pylist()
        if any(isinstance(value, str) for value in values):
            known = self._list_classes()
            names = list(dict.fromkeys([*known, *sorted({value for value in values if value is not None})]))
            places = {name: place for place, name in enumerate(names)}
            return np.array([-1 if value is None else places[value] for value in values], np.int32), names
        labels = np.array([-1 if value is None else value for value in values], np.int32)
        names = self._list_classes()
        return labels, [*names, *map(str, range(len(names), int(labels.max(initial=-1)) + 1))]

    def _list_classes(self) -> list[str]:
        try:
            return list(document.read(self._dataset / "dataset.json")["classes"]) if self._dataset else []
        except (OSError, Corrupt, KeyError):  # it was deleted since
            return []

    def _find(self, name: str) -> StoredFile:
        if name not in self._files:
            raise BadEmbeddings("bad_embeddings", f"The job has not left the file {name}.")
        return self._files[name]


def _parse(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_bytes())
        return {name: about[name] for name in _FIELDS}
    except (ValueError, KeyError, TypeError) as error:
        raise BadEmbeddings("bad_embeddings", f"{LIST} is not the list of embeddings.") from error
