"""Archives: reads an upload as a stream of images, whatever it is packed in.

The format is detected by magic bytes. A name in an archive is never used as a path; an unsafe path rejects the whole
upload nevertheless. Files of an archive that hold images themselves are read too, one level deep: archives and Parquet
when they are reached, arrays and batches at the end, since their labels are often files of their own. Those files are
copied to an unnamed temporary file.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from ssl_core.config import Reading
from ssl_core.data.items import BadFile, Finding, Found, PackError
from worker.uploads import compressed, formats, parquet, shards, tar, webdataset
from worker.uploads.arrays import npz
from worker.uploads.binaries import stored_images
from worker.uploads.entries import HEAD, BadEntry, Entry, UnsafePath, Walked, read_exactly, read_item
from worker.uploads.limits import LimitExceeded, Meter
from worker.uploads.shelf import Shelf, Stored
from worker.uploads.zips import ZipArchive

DEFAULTS = Reading()


def read(file: IO[bytes], meter: Meter, reading: Reading = DEFAULTS, directory: Path | None = None) -> Iterator[Found]:
    """Yield the upload's files in archive order. Raises PackError.

    directory: of the temporary file.
    """
    head = _read_head(file)
    with Shelf(directory) as shelf:
        upload = _Upload(meter, reading, shelf)
        if head.startswith(b"PAR1"):
            yield from parquet.read(file, meter, reading)
        elif (kind := _find_lone_kind(file, head)) is not None:
            yield from stored_images.read([Stored("", kind, file)], meter, reading)
        elif formats.is_archive(head):
            yield from upload.read_archive(file)
        else:
            raise PackError("not_an_archive", formats.explain(head))


class _Upload:
    """An upload that is being read. nested: within an archive of the upload, whose own archives are not opened."""

    def __init__(self, meter: Meter, reading: Reading, shelf: Shelf, nested: bool = False) -> None:
        self._meter = meter
        self._reading = reading
        self._shelf = shelf
        self._nested = nested
        self._stored: list[Stored] = []
        self._images = 0

    def read_archive(self, file: IO[bytes], name: str = "") -> Iterator[Found]:
        """Yield the images of a zip, npz or tar archive. Raises PackError."""
        folder, number = shards.find_folder(name) if name else ("", "")
        walked = self._open_archive(file, _read_head(file))
        if walked is None:
            yield from _move(npz.read(file, self._meter, self._reading, shards.find_split(name)), folder)
            return
        files = webdataset.pair(self._read_files(walked), self._reading, shards.find_split(name), number)
        yield from _move(files, folder)
        stored = stored_images.read(self._stored, self._meter, self._reading, beside_images=self._images > 0)
        yield from _move(stored, folder)

    def _open_archive(self, file: IO[bytes], head: bytes) -> Iterator[Walked] | None:
        """Return the walk over the files; None for an npz."""
        if formats.is_zip(head):
            archive = ZipArchive(file)
            return None if npz.is_npz(archive) else archive.walk(self._meter)
        kind = compressed.find_format(head)
        file.seek(0)
        return tar.walk(file if kind is None else compressed.open_stream(file, kind), self._meter)

    def _read_files(self, walked: Iterator[Walked]) -> Iterator[Found]:
        for entry in walked:
            if not isinstance(entry, Entry):
                yield entry
                continue
            try:
                yield from self._read_entry(entry)
            except BadEntry as error:
                yield error.bad

    def _read_entry(self, entry: Entry) -> Iterator[Found]:
        head = read_exactly(entry.read, HEAD)
        kind = None if self._nested else formats.find_kind(entry.name, head)
        if kind is None:
            self._images += formats.is_image_name(entry.name)
            yield read_item(entry, head, self._meter)
            return
        stored = self._shelf.store(entry, kind, head)
        if kind == "archive":
            yield from self._read_inner_archive(stored)
            self._shelf.release(stored)
        elif kind == "parquet":
            yield from parquet.read(stored.file, self._meter, self._reading, stored.name)
            self._shelf.release(stored)
        else:
            self._stored.append(stored)

    def _read_inner_archive(self, stored: Stored) -> Iterator[Found]:
        inner = _Upload(self._meter, self._reading, self._shelf, nested=True)
        try:
            yield from inner.read_archive(stored.file, stored.name)
        except (LimitExceeded, UnsafePath):
            raise
        except PackError as error:
            yield BadFile(stored.name, error.code, error.detail)


def _read_head(file: IO[bytes]) -> bytes:
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return head


def _find_lone_kind(file: IO[bytes], head: bytes) -> formats.Kind | None:
    """Return the kind of an upload that is one file of images, and no archive."""
    if compressed.find_format(head) == "gz":
        try:
            head = compressed.open_stream(file, "gz").read(HEAD)
        except PackError:
            return None
        return "idx" if formats.is_idx(head) else None
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if formats.is_idx(head):
        return "idx"
    return "cifar" if formats.is_pickle(head) else None


def _move(files: Iterator[Found], folder: str) -> Iterator[Found]:
    """Yield the files with their names in the folder."""
    for file in files:
        if isinstance(file, Finding) or not folder:
            yield file
        else:
            yield replace(file, name=f"{folder}/{file.name}")
