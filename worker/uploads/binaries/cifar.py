"""CIFAR-10 and CIFAR-100: batches as pickles (the "python version") or as rows of bytes (the "binary version").

An image is three planes of side×side bytes: red, green, blue. Downsampled ImageNet has the same pickles, with larger
sides and labels from 1. Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_core.config import Reading
from ssl_core.data import decode
from ssl_core.data.items import Finding, Item, PackError
from ssl_core.data.split_names import Split
from worker.uploads import shards
from worker.uploads.binaries import pickled
from worker.uploads.limits import Meter
from worker.uploads.shelf import Stored

_PLANES = 3
_PIXELS = 32 * 32 * _PLANES
_LABELS = ("labels", "fine_labels", "coarse_labels")
_NAMES = {"labels": "label_names", "fine_labels": "fine_label_names", "coarse_labels": "coarse_label_names"}
_READ_KEYS = {"data", "filenames", "batch_label", "num_cases_per_batch", "num_vis", *_LABELS, *_NAMES.values()}
_TEXTS = {"label_names": "batches.meta.txt", "fine_label_names": "fine_label_names.txt"}
_MAX_TEXT, _MAX_NAME = 2**16, 2**10  # bytes
_UNREAD = "Fields of CIFAR's batches other than their images and labels are not read."
_OTHER_LABELS = "Of the several labels of CIFAR-100 the fine ones are read, unless `label_column` names others."

Batch = Mapping[str, Any]
Label = str | int | None


def read(files: Sequence[Stored], texts: Sequence[Stored], meter: Meter, reading: Reading) -> Iterator[Item | Finding]:
    """Yield the images of the batches. Raises PackError.

    texts: files of class names, one a line, which the binary version has.
    """
    pickles = [file for file in files if not file.name.endswith(".bin")]
    names: dict[str, list[str]] = {}
    for key, ending in _TEXTS.items():
        for file in texts:
            if file.name.endswith(ending):
                names[key] = [line for line in file.read_text(_MAX_TEXT).splitlines() if line]
    batches = []
    for file in pickles:
        batch = _load(file)
        names |= {key: batch[key] for key in _NAMES.values() if _is_names(batch.get(key))}
        if "data" in batch:
            batches.append(file)
    for file in batches:  # one at a time in memory
        yield from _read_batch(file, names, meter, reading)
    for file in files:
        if file.name.endswith(".bin"):
            yield from _read_binary(file, names, meter)
    if not batches and len(pickles) == len(files):
        raise PackError("no_images", "The pickle has no array `data` of images, as a batch of CIFAR has.")


def is_names(file: Stored) -> bool:
    """Return whether the text file holds class names of CIFAR's binary version."""
    return not file.name.endswith("class_names.txt")


def _load(file: Stored) -> Batch:
    value = pickled.load(file.file, file.size)
    if not isinstance(value, dict):
        raise PackError("no_images", "The pickle holds no dict, as a batch of CIFAR is.")
    return {_to_text(key): _clean(item) for key, item in value.items() if isinstance(key, str | bytes)}


def _clean(value: Any) -> Any:
    """Return the value, with a list of names as text."""
    if isinstance(value, list) and value and all(isinstance(item, str | bytes) for item in value):
        return [_to_text(item) for item in value]
    return value


def _to_text(value: str | bytes) -> str:
    """Return the beginning of a name, of which a pickle may hold a long one many times in few bytes."""
    value = value[:_MAX_NAME]
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _read_batch(
    file: Stored, names: Mapping[str, list[str]], meter: Meter, reading: Reading
) -> Iterator[Item | Finding]:
    batch = _load(file)
    data = batch["data"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim not in (2, 4):
        raise PackError("wrong_shape", f"The array data of {file.name or 'the pickle'} must be uint8 of N×3072.")
    rows = data.reshape(len(data), math.prod(data.shape[1:]))
    side = math.isqrt(rows.shape[1] // _PLANES)
    if not side or side * side * _PLANES != rows.shape[1] or (data.ndim == 4 and data.shape[1] != _PLANES):
        raise PackError("wrong_shape", f"The images of {file.name or 'the pickle'} must be three square planes.")
    present = [key for key in _LABELS if key in batch]
    key = reading.label_column if reading.label_column in batch else (present[0] if present else None)
    labels = _read_labels(batch, key, len(rows), names)
    meter.add_images(len(rows))
    split = shards.find_split(file.name) or "train"
    for number, row in enumerate(rows):
        yield _make_item(file, number, row.reshape(_PLANES, side, side), labels[number], split)
    for other in batch:
        if other in present and other != key:
            yield Finding("unread_labels", _OTHER_LABELS, other)
        elif other not in _READ_KEYS and other != key:
            yield Finding("unread_fields", _UNREAD, other)


def _read_labels(batch: Batch, key: str | None, count: int, names: Mapping[str, list[str]]) -> list[Label]:
    if key is None:
        return [None] * count
    values = batch[key].tolist() if isinstance(batch[key], np.ndarray) else batch[key]
    if not isinstance(values, list) or len(values) != count:
        raise PackError("labels_length", f"There are {count:,} images, and {key} is not a list of that length.")
    if not all(isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**63) for value in values):
        raise PackError("wrong_dtype", f"{key} must be integers or strings.")
    known = names.get(_NAMES.get(key, ""), [])
    return [known[value] if isinstance(value, int) and 0 <= value < len(known) else value for value in values]


def _read_binary(file: Stored, names: Mapping[str, list[str]], meter: Meter) -> Iterator[Item]:
    """Yield the images of rows of one label, or of a coarse and a fine one, and 3,072 pixels."""
    base = file.name.rpartition("/")[2]
    labels = 2 if base in ("train.bin", "test.bin") else 1
    row_bytes = labels + _PIXELS
    count, rest = divmod(file.size, row_bytes)
    if rest:
        detail = f"{file.name} has {file.size:,} bytes, which is no whole number of rows of {row_bytes:,}."
        raise PackError("truncated_archive", detail)
    meter.add_images(count)
    known = names.get("fine_label_names" if labels == 2 else "label_names", [])
    split = shards.find_split(file.name) or "train"
    file.file.seek(0)
    for number in range(count):
        row = np.frombuffer(file.file.read(row_bytes), np.uint8)
        label = int(row[labels - 1])
        value = known[label] if label < len(known) else label
        yield _make_item(file, number, row[labels:].reshape(_PLANES, 32, 32), value, split)


def _make_item(file: Stored, number: int, planes: NDArray[np.uint8], label: Label, split: Split) -> Item:
    pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
    return Item(f"{file.name or 'images'}/{number:08d}", decode.encode_png(pixels), label, split)
