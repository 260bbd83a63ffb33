"""Labels of arrays: numbers, names, or one column for each class."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_core.data.items import Finding, PackError
from ssl_core.data.split_names import Split, parse_split
from worker.uploads.arrays.array import Array, read_row

Label = str | int | None

_MAX_LABEL_BYTES = 4096
_MAX_CLASSES = 100_000
_ROWS = 1024
_MULTIPLE = "Labels with several classes for an image are not read; the images are unlabelled."


def read(array: Array, count: int) -> tuple[list[Label], Finding | None]:
    """Return one label for each of the images, and a finding when there are several. Raises PackError."""
    if array.dtype.kind not in "biuUS" and not _is_matrix(array, count):
        raise PackError("wrong_dtype", f"{array.name} must be integers or strings, and are {array.dtype}.")
    if array.dtype.itemsize > _MAX_LABEL_BYTES:
        raise PackError("wrong_dtype", f"{array.name} must be integers or strings, and are {array.dtype}.")
    if array.shape in ((count,), (count, 1)):
        return list(_read_values(array)), None
    if not _is_matrix(array, count):
        raise PackError("labels_length", f"There are {count:,} images, and labels of shape {array.describe_shape()}.")
    labels = _read_one_hot(array)
    if labels is None:
        return [None] * count, Finding("multiple_labels", _MULTIPLE, array.name)
    return labels, None


def read_splits(array: Array, count: int) -> list[Split]:
    """Return the split of each image. Raises PackError."""
    if array.shape not in ((count,), (count, 1)):
        raise PackError("labels_length", f"There are {count:,} images, and splits of shape {array.describe_shape()}.")
    if array.dtype.kind not in "US" or array.dtype.itemsize > _MAX_LABEL_BYTES:
        raise PackError("wrong_dtype", f"{array.name} must be strings, and are {array.dtype}.")
    splits = [parse_split(str(value)) for value in _read_values(array)]
    known: list[Split] = [split for split in splits if split is not None]
    if len(known) < count:
        raise PackError("unknown_split", f"The array {array.name} holds a value other than train, val and test.")
    return known


def read_names(array: Array) -> list[str]:
    """Return the class names; none when the array is no list of names."""
    if array.dtype.kind not in "US" or len(array.shape) != 1 or array.shape[0] > _MAX_CLASSES:
        return []
    return [] if array.dtype.itemsize > _MAX_LABEL_BYTES else [str(value) for value in _read_values(array)]


def _is_matrix(array: Array, count: int) -> bool:
    """Whether the array has a column of numbers for each class."""
    columns = array.shape[1] if len(array.shape) == 2 and array.shape[0] == count else 0
    return array.dtype.kind in "biuf" and 1 < columns <= _MAX_CLASSES


def _read_values(array: Array) -> list[str | int]:
    data = read_row(array.open(), array.shape[0] * array.dtype.itemsize)
    try:
        values = np.frombuffer(data, array.dtype).tolist()
    except (ValueError, SystemError) as error:  # an invalid code point
        raise PackError("corrupt_archive", "The labels hold text that is not valid Unicode.") from error
    return [_clean_value(value) for value in values]


def _clean_value(value: Any) -> str | int:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return int(value) if isinstance(value, bool) else value


def _read_one_hot(array: Array) -> list[Label] | None:
    """Return the column of the one in each row; None unless every row has a single one among zeros."""
    stream = array.open()
    labels: list[Label] = []
    while len(labels) < array.shape[0]:
        rows = min(max(1, _ROWS * 1024 // array.row_bytes), array.shape[0] - len(labels))
        values: NDArray[Any] = np.frombuffer(read_row(stream, rows * array.row_bytes), array.dtype)
        values = values.reshape(rows, -1)
        if not ((values == 1).sum(1) == 1).all() or np.count_nonzero(values) != rows:
            return None
        labels.extend(values.argmax(1).tolist())
    return labels
