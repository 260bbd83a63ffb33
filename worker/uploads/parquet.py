"""Parquet files: reads a column of encoded images, or of lists of pixels, as a stream of images.

Encoded images are bytes, or structs with a field `bytes` as in Hugging Face datasets.
"""

from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssl_core.config import Reading
from ssl_core.data.items import BadFile, Found, Item, PackError
from ssl_core.data.split_names import Split, parse_split
from worker.uploads import parquet_columns, shards
from worker.uploads.arrays import pixels
from worker.uploads.entries import too_large_file
from worker.uploads.limits import Meter
from worker.uploads.parquet_columns import Columns, is_list

DEFAULTS = Reading()
_BATCH_ROWS = 32
_VALUE_BYTES = 8  # of a number in memory, at most


def read(file: IO[bytes], meter: Meter, reading: Reading = DEFAULTS, path: str = "") -> Iterator[Found]:
    """Yield an image for each row. Raises PackError.

    path: of a file within an archive, whose name may hold the split.
    """
    pa.set_memory_pool(pa.system_memory_pool())  # the other pools reserve far more address space than they use
    try:
        yield from _read_rows(file, meter, reading, path)
    except (pa.ArrowException, OSError) as error:
        # Arrow's OSErrors about the file's content have no errno; those of the system have one.
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise PackError("corrupt_archive", "The Parquet file is truncated or damaged.") from error
    except UnicodeDecodeError as error:
        raise PackError("corrupt_archive", "A text column holds invalid UTF-8.") from error


def _read_rows(file: IO[bytes], meter: Meter, reading: Reading, path: str) -> Iterator[Found]:
    table = pq.ParquetFile(file, pre_buffer=False)
    meter.add_images(table.metadata.num_rows)
    columns = parquet_columns.choose(table.schema_arrow, reading)
    yield from columns.findings
    kind = table.schema_arrow.field(columns.image).type
    if is_list(kind):
        meter.check_bytes(_VALUE_BYTES * _count_values(table.metadata, columns.image))
    struct = pa.types.is_struct(kind)
    present = [name for name in ("bytes", "path") if struct and kind.get_field_index(name) >= 0]
    fields = [f"{columns.image}.{name}" for name in present]
    others = [name for name in (columns.label, columns.split) if name]
    split = shards.find_split(path) or "train"
    folder = f"{path.removesuffix('.parquet')}/" if path else ""
    number = 0
    for batch in table.iter_batches(_BATCH_ROWS, columns=[*(fields or [columns.image]), *others], use_threads=False):
        for name in others:
            meter.add_bytes(_count_bytes(batch.column(name)))
        images = batch.column(columns.image)
        data = images.field("bytes") if struct else images
        paths = images.field("path") if len(fields) > 1 else [None] * len(batch)
        labels, splits = _read_labels(batch, columns), _read_splits(batch, columns, split)
        for image, place, label, part in zip(data, paths, labels, splits, strict=True):
            name = f"{folder}row {number:09d}"
            if not image.is_valid and place is not None and place.is_valid:
                raise parquet_columns.no_bytes(columns.image)
            yield _make_item(name, image, label, part, meter)
            number += 1


def _count_bytes(column: pa.Array) -> int:
    """Return the size of the values, where repeated ones count each time."""
    if not pa.types.is_dictionary(column.type) or pa.types.is_integer(column.type.value_type):
        return int(column.nbytes)
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    return int(pc.sum(lengths).as_py() or 0)


def _count_values(metadata: pq.FileMetaData, column: str) -> int:
    """Return the declared number of values in a column of lists."""
    return sum(
        chunk.num_values
        for group in range(metadata.num_row_groups)
        for place in range(metadata.num_columns)
        if (chunk := metadata.row_group(group).column(place)).path_in_schema.split(".", 1)[0] == column
    )


def _read_labels(batch: pa.RecordBatch, columns: Columns) -> list[str | int | None]:
    if columns.label is None:
        return [None] * len(batch)
    return [_name_label(value, columns.classes) for value in batch.column(columns.label).to_pylist()]


def _read_splits(batch: pa.RecordBatch, columns: Columns, default: Split) -> list[Split]:
    if columns.split is None:
        return [default] * len(batch)
    return [_parse_split(value, columns.split, default) for value in batch.column(columns.split).to_pylist()]


def _make_item(name: str, image: Any, label: str | int | None, split: Split, meter: Meter) -> Item | BadFile:
    if not image.is_valid:
        return BadFile(name, "empty", "The row has no image.")
    if is_list(image.type):
        return _make_item_of_pixels(name, image, label, split, meter)
    view = image.as_buffer()
    meter.add_bytes(view.size)
    if view.size > meter.limits.image_bytes:
        return too_large_file(name, meter)
    return Item(name, view.to_pybytes(), label, split)


def _make_item_of_pixels(name: str, image: Any, label: str | int | None, split: Split, meter: Meter) -> Item | BadFile:
    shape, values = _flatten(image)
    meter.add_bytes(values.nbytes)
    if shape is None or values.null_count:
        return BadFile(name, "wrong_shape", "The lists of the row's pixels differ in length, or lack values.")
    numbers = values.to_numpy(zero_copy_only=False)
    geometry = pixels.infer_geometry("The images", (1, *shape))
    if geometry.channels not in (1, 3):
        raise PackError("wrong_shape", f"The images must have 1 or 3 channels, and have {geometry.channels}.")
    if geometry.height * geometry.width > meter.limits.image_pixels:
        return BadFile(name, "too_many_pixels", f"An image may have at most {meter.limits.image_pixels:,} pixels.")
    if numbers.dtype.kind not in "ui" or numbers.min() < 0 or numbers.max() > 255:
        raise PackError("wrong_dtype", "Pixels in lists must be integers from 0 to 255; other images must be encoded.")
    return Item(name, pixels.encode(geometry.arrange(numbers.astype(np.uint8))), label, split)


def _flatten(image: Any) -> tuple[tuple[int, ...] | None, Any]:
    """Return the shape of nested lists, None where lengths differ, and their values as one Arrow array."""
    values = image.value.values if isinstance(image, pa.ExtensionScalar) else image.values
    shape: tuple[int, ...] = (len(values),)
    while is_list(values.type):
        lengths = [] if values.null_count else np.unique(values.value_lengths()).tolist()
        if len(lengths) != 1:
            return None, values.flatten()
        shape = (*shape, lengths[0])
        values = values.flatten()
    return shape, values


def _name_label(value: str | int | None, classes: list[str]) -> str | int | None:
    if isinstance(value, bool):
        return int(value)
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value


def _parse_split(value: str | None, column: str, default: Split) -> Split:
    split = parse_split(str(value or default))
    if split is None:
        raise PackError("unknown_split", f"The column {column} holds a value other than train, val and test.")
    return split
