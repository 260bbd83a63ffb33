"""STL-10: images as rows of three planes of 96×96 bytes, each in column-major order, and labels from 1.

Source: https://cs.stanford.edu/~acoates/stl10/
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ssl_core.data import decode
from ssl_core.data.items import Item, PackError
from worker.uploads import shards
from worker.uploads.limits import Meter
from worker.uploads.shelf import Stored

_SHAPE = (3, 96, 96)  # planes, columns, rows
_ROW_BYTES = 3 * 96 * 96
_MAX_TEXT = 2**16  # bytes


def read(files: Sequence[Stored], texts: Sequence[Stored], meter: Meter) -> Iterator[Item]:
    """Yield the images: those of `unlabeled_X.bin` are in the training split, without a label. Raises PackError.

    texts: with the class names, one a line, if they are there.
    """
    labels = {file.name: file for file in files if file.name.endswith("_y.bin")}
    names = [line for file in texts if is_names(file) for line in file.read_text(_MAX_TEXT).splitlines() if line]
    for file in files:
        if file.name not in labels:
            yield from _read_file(file, labels.get(file.name.replace("_X.bin", "_y.bin")), names, meter)


def is_names(file: Stored) -> bool:
    """Return whether the text file holds the class names."""
    return file.name.endswith("class_names.txt")


def _read_file(file: Stored, labels: Stored | None, names: list[str], meter: Meter) -> Iterator[Item]:
    count, rest = divmod(file.size, _ROW_BYTES)
    if rest:
        detail = f"{file.name} has {file.size:,} bytes, which is no whole number of images of {_ROW_BYTES:,}."
        raise PackError("truncated_archive", detail)
    meter.add_images(count)
    values = _read_labels(file.name, labels, count)
    split = shards.find_split(file.name) or "train"
    file.file.seek(0)
    for number in range(count):
        pixels = np.frombuffer(file.file.read(_ROW_BYTES), np.uint8).reshape(_SHAPE).transpose(2, 1, 0)
        value = None if values is None else int(values[number])
        label = names[value - 1] if value is not None and 0 < value <= len(names) else value
        data = decode.encode_png(np.ascontiguousarray(pixels))
        yield Item(f"{file.name}/{number:08d}", data, label, split)


def _read_labels(name: str, labels: Stored | None, count: int) -> bytes | None:
    if labels is None:
        return None
    if labels.size != count:
        raise PackError("labels_length", f"{name} has {count:,} images, and {labels.name} {labels.size:,} labels.")
    labels.file.seek(0)
    return labels.file.read(count)
