"""Shard files: the vectors of some images as npy and as Parquet, written while they are computed, and found again.

Both files get each part of the vectors as it comes, so that no more than a few parts are in memory. The Parquet file
becomes real first and holds the SHA-256 of the other: when both are there and agree, the shard is complete.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssl_core import events
from ssl_core.config.embedding import ShardRange, name_files
from ssl_core.data.dataset import Dataset
from ssl_core.data.sampling import Rows
from ssl_core.data.split_names import SPLITS
from ssl_core.files import HashedStream, WrittenFile, write_stream

Vectors = NDArray[Any]  # N×D, float32 or float16
_ABOUT, _NPY_SHA256 = b"twoviews", b"npy_sha256"  # keys of the Parquet file's metadata
_ROW_GROUP = 4_096  # rows, at least but for the last group
_CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class ShardFolder:
    """The folder of a run's shards, and what is the same in all of them."""

    directory: Path
    dataset: Dataset
    rows: Rows  # of the dataset, embedded in this order
    dim: int
    dtype: str  # float32 | float16
    about: Mapping[str, Any]  # plain values that identify the run: shards of another one are not taken for its own

    def write(self, shard: ShardRange, parts: Iterable[Vectors]) -> events.Shard:
        """Write the files of a shard from its vectors, part by part. Raises OSError, and what `parts` raises."""
        npy_name, parquet_name = name_files(shard.number)
        parquet: list[WrittenFile] = []

        def write_npy(npy: HashedStream) -> None:
            npy.write(_build_npy_header((shard.rows, self.dim), self.dtype))

            def write_parquet(stream: HashedStream) -> None:
                self._write_both(shard, parts, npy, stream)

            parquet.append(write_stream(self.directory / parquet_name, write_parquet))

        npy = write_stream(self.directory / npy_name, write_npy)
        return _build_event(shard, npy, parquet[0])

    def find(self, shard: ShardRange) -> events.Shard | None:
        """Return a shard whose files are there, complete and of this run. Raises OSError."""
        npy, parquet = (self.directory / name for name in name_files(shard.number))
        try:
            metadata = pq.read_metadata(parquet).metadata or {}
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
        if metadata.get(_ABOUT) != self._describe(shard) or not npy.is_file():
            return None
        written = _hash(npy)
        if metadata.get(_NPY_SHA256) != written.sha256.encode():
            return None
        return _build_event(shard, written, _hash(parquet))

    def list_row_ranges(self, shard: ShardRange) -> list[list[int]]:
        """Return the dataset's rows of a shard as ranges [first, end), in order."""
        rows = self.rows[shard.first_row : shard.first_row + shard.rows]
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        ends = np.append(starts[1:], len(rows))
        return [[int(rows[start]), int(rows[end - 1]) + 1] for start, end in zip(starts, ends, strict=True)]

    def _write_both(self, shard: ShardRange, parts: Iterable[Vectors], npy: HashedStream, stream: HashedStream) -> None:
        schema = _build_schema(self.dim, self.dtype)
        with pq.ParquetWriter(
            _Sink(stream),
            schema,
            compression={name: "none" if name == "vector" else "zstd" for name in schema.names},
            use_dictionary=["label", "split"],
            write_statistics=["row"],
            store_schema=True,
        ) as writer:
            first = shard.first_row
            for vectors in _join(_write_parts(parts, npy)):
                writer.write_table(self._build_table(self.rows[first : first + len(vectors)], vectors, schema))
                first += len(vectors)
            if first - shard.first_row != shard.rows:
                raise ValueError(f"shard {shard.number} has {first - shard.first_row} vectors of {shard.rows}")
            writer.add_key_value_metadata({_ABOUT: self._describe(shard), _NPY_SHA256: npy.sha256()})

    def _build_table(self, rows: Rows, vectors: Vectors, schema: pa.Schema) -> pa.Table:
        names = pa.array(self.dataset.class_names, pa.string())
        labels = self.dataset.labels[rows]
        columns = [
            pa.array(rows, pa.int64()),
            self.dataset.read_names(rows),
            names.take(pa.array(labels, mask=labels < 0)),
            pa.array(SPLITS, pa.string()).take(pa.array(self.dataset.splits[rows])),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self.dim),
        ]
        return pa.Table.from_arrays(columns, schema=schema)

    def _describe(self, shard: ShardRange) -> bytes:
        place = {"first_row": shard.first_row, "rows": shard.rows}
        return json.dumps({**self.about, **place}, sort_keys=True).encode()


class _Sink(io.RawIOBase):
    """A hashed stream as the file that Arrow writes to, which asks for its position."""

    def __init__(self, stream: HashedStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._stream.write(memoryview(data))

    def tell(self) -> int:
        return self._stream.size_bytes


def _build_schema(dim: int, dtype: str) -> pa.Schema:
    number = pa.from_numpy_dtype(np.dtype(dtype))
    return pa.schema(
        [
            ("row", pa.int64()),
            ("path", pa.string()),
            ("label", pa.string()),
            ("split", pa.string()),
            ("vector", pa.list_(number, dim)),
        ]
    )


def _build_npy_header(shape: tuple[int, int], dtype: str) -> bytes:
    header = io.BytesIO()
    fields = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def _write_parts(parts: Iterable[Vectors], npy: HashedStream) -> Iterator[Vectors]:
    """Write each part to the npy file and pass it on. Raises the file's OSError."""
    for part in parts:
        vectors = np.ascontiguousarray(part)
        npy.write(vectors.data.cast("B"))
        if npy.error is not None:
            raise npy.error
        yield vectors


def _join(parts: Iterable[Vectors]) -> Iterator[Vectors]:
    """Join parts to row groups."""
    group: list[Vectors] = []
    for part in parts:
        group.append(part)
        if sum(map(len, group)) >= _ROW_GROUP:
            yield np.concatenate(group)
            group = []
    if group:
        yield np.concatenate(group)


def _build_event(shard: ShardRange, npy: WrittenFile, parquet: WrittenFile) -> events.Shard:
    files = (npy.sha256, npy.size_bytes, parquet.sha256, parquet.size_bytes)
    return events.Shard(shard.number, shard.first_row, shard.rows, *files)


def _hash(path: Path) -> WrittenFile:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return WrittenFile(path, digest.hexdigest(), size)
