"""Stored images: arrays and batches of an upload, read together once all of them are there."""

from collections.abc import Iterator, Sequence

from ssl_core.config import Reading
from ssl_core.data.items import Finding, Found
from worker.uploads.arrays import idx, pairing
from worker.uploads.arrays.array import Array, Unreadable, read_npy
from worker.uploads.binaries import cifar, stl10
from worker.uploads.entries import Stream, read_item
from worker.uploads.limits import Meter
from worker.uploads.shelf import Stored

_BESIDE = "Arrays beside image files are not read."


def read(stored: Sequence[Stored], meter: Meter, reading: Reading, beside_images: bool = False) -> Iterator[Found]:
    """Yield the images of all files. Raises PackError.

    beside_images: the archive holds image files too, beside which arrays are something else, and batches are files.
    """
    arrays = [_open_array(file, meter) for file in stored if file.kind in ("npy", "idx")]
    if beside_images:
        for array in arrays:
            yield Finding("unread_arrays", _BESIDE, array.name)
    elif arrays:
        yield from pairing.read(arrays, meter, reading)
    others = [file for file in stored if file.kind not in ("npy", "idx")]
    if beside_images:
        yield from (read_item(file.as_entry(), b"", meter) for file in others)
        return
    texts = [file for file in others if file.kind == "text"]
    batches = [file for file in others if file.kind == "cifar"]
    rows = [file for file in others if file.kind == "stl10"]
    used = []
    if batches:
        yield from cifar.read(batches, texts, meter, reading)
        used += [file for file in texts if cifar.is_names(file)]
    if rows:
        yield from stl10.read(rows, texts, meter)
        used += [file for file in texts if stl10.is_names(file)]
    for file in texts:
        if file not in used:
            yield read_item(file.as_entry(), b"", meter)


def _open_array(stored: Stored, meter: Meter) -> Array | Unreadable:
    if stored.kind == "idx":
        return idx.read(stored, meter)

    def open_file() -> Stream:
        stored.file.seek(0)
        return stored.file

    return read_npy(stored.name.removesuffix(".npy"), open_file)
