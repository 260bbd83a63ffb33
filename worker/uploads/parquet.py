"""Parquet files: reads a column of encoded images as a stream of images.

Images are bytes, or structs with a field `bytes` as in Hugging Face datasets; columns `label` and `split` are optional.
"""

import json
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_core.data.items import BadFile, Found, Item, PackError
from ssl_core.data.split_names import SPLIT_NAMES, Split
from worker.uploads.limits import Meter

_BATCH_ROWS = 32
_IMAGE_NAMES = ("image", "img", "images")
_LABEL_NAMES = ("label", "labels", "class")


def read(file: IO[bytes], meter: Meter) -> Iterator[Found]:
    """Yield an image for each row. Raises PackError."""
    pa.set_memory_pool(pa.system_memory_pool())  # the other pools reserve far more address space than they use
    try:
        yield from _read_rows(file, meter)
    except (pa.ArrowException, OSError) as error:
        # Arrow's OSErrors about the file's content have no errno; those of the system have one.
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise PackError("corrupt_archive", "The Parquet file is truncated or damaged.") from error
    except UnicodeDecodeError as error:
        raise PackError("corrupt_archive", "A text column holds invalid UTF-8.") from error


def _read_rows(file: IO[bytes], meter: Meter) -> Iterator[Found]:
    table = pq.ParquetFile(file, pre_buffer=False)
    schema = table.schema_arrow
    meter.check_images(table.metadata.num_rows)
    image = _find_image_column(schema)
    label = next((name for name in _LABEL_NAMES if name in schema.names), None)
    split = "split" if "split" in schema.names else None
    classes = _read_class_names(schema, label)
    for name in (image, label, split):
        if schema.names.count(name) > 1:
            raise PackError("doubled_column", f"The column {name} is there more than once.")
    _check_types(schema, label, split)
    struct = pa.types.is_struct(schema.field(image).type)
    columns = [f"{image}.bytes" if struct else image, *(name for name in (label, split) if name)]
    number = 0
    for batch in table.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
        pixels = batch.column(image).field("bytes") if struct else batch.column(image)
        labels = batch.column(label).to_pylist() if label else [None] * len(batch)
        splits = batch.column(split).to_pylist() if split else ["train"] * len(batch)
        for data, value, part in zip(pixels, labels, splits, strict=True):
            yield _make_item(f"row {number:09d}", data, _name_label(value, classes), _parse_split(part), meter)
            number += 1


def _make_item(name: str, data: Any, label: str | int | None, split: Split, meter: Meter) -> Item | BadFile:
    if not data.is_valid:
        return BadFile(name, "empty", "The row has no image.")
    view = data.as_buffer()
    meter.add_bytes(view.size)
    if view.size > meter.limits.image_bytes:
        return BadFile(name, "file_too_large", f"The file has more than {meter.limits.image_bytes:,} bytes.")
    return Item(name, view.to_pybytes(), label, split)


def _find_image_column(schema: pa.Schema) -> str:
    candidates: list[str] = [field.name for field in schema if _holds_bytes(field.type)]
    named = [name for name in _IMAGE_NAMES if name in candidates]
    if named or len(candidates) == 1:
        return (named or candidates)[0]
    raise PackError("no_image_column", "The Parquet file has no column `image` of bytes, or of structs with `bytes`.")


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type))
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _check_types(schema: pa.Schema, label: str | None, split: str | None) -> None:
    for name, integers in ((label, True), (split, False)):
        if name is None:
            continue
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not text and not (integers and pa.types.is_integer(kind)):
            raise PackError("wrong_dtype", f"The column {name} has an unsupported type: {kind}.")


def _read_class_names(schema: pa.Schema, label: str | None) -> list[str]:
    """Return the class names as Hugging Face `datasets` stores them; empty when there are none."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _name_label(value: str | int | None, classes: list[str]) -> str | int | None:
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value


def _parse_split(value: str | None) -> Split:
    split = SPLIT_NAMES.get(str(value or "train").casefold())
    if split is None:
        raise PackError("unknown_split", "The column split holds a value other than train, val and test.")
    return split
