"""NumPy archives: the arrays of an npz file, read where they stand in it."""

from collections.abc import Iterator
from functools import partial
from typing import IO

from ssl_core.config import Reading
from ssl_core.data.items import Found, PackError
from ssl_core.data.split_names import Split
from worker.uploads.arrays import pairing
from worker.uploads.arrays.array import read_npy
from worker.uploads.limits import Meter
from worker.uploads.zips import ZipArchive, find_unsupported_method

_ENDING = ".npy"


def is_npz(archive: ZipArchive) -> bool:
    """Return whether all files of the archive are arrays."""
    return bool(archive.names) and all(name.endswith(_ENDING) for name in archive.names)


def read(file: IO[bytes], meter: Meter, reading: Reading, split: Split | None = None) -> Iterator[Found]:
    """Yield the images as encoded files. Raises PackError.

    split: of arrays whose name holds none.
    """
    archive = ZipArchive(file)
    arrays = []
    for entry, path in zip(archive.entries, archive.names, strict=True):
        meter.add_entry()
        name = path.removesuffix(_ENDING)
        if entry.flag_bits & 0x1:
            raise PackError("encrypted", "The archive is encrypted; pack the images without a password.")
        if (fault := find_unsupported_method(entry, name)) is not None:
            raise PackError(fault.code, f"The array {name} cannot be read. {fault.detail}")
        arrays.append(read_npy(name, partial(archive.open, entry, name, meter)))
    yield from pairing.read(arrays, meter, reading, split)
