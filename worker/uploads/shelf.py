"""Shelf: files of an archive that hold images themselves, copied to one unnamed temporary file."""

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from worker.uploads.entries import CHUNK, Entry
from worker.uploads.formats import Kind


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that holds images. name: its clean path; empty for the upload itself."""

    name: str
    kind: Kind
    file: IO[bytes]  # that can seek, from byte 0

    @property
    def size(self) -> int:
        return self.file.seek(0, io.SEEK_END)

    def read_text(self, size: int) -> str:
        """Return the first `size` bytes as text."""
        self.file.seek(0)
        return self.file.read(size).decode("utf-8", "backslashreplace")

    def as_entry(self) -> Entry:
        """Return the file as an entry that is read from its first byte."""
        self.file.seek(0)
        return Entry(self.name, self.file.read)


class Shelf:
    """Stores files one behind the other; they vanish with the process, whatever their number."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def store(self, entry: Entry, kind: Kind, head: bytes) -> Stored:
        """Copy the rest of the entry, whose first bytes are `head`. Raises BadEntry, PackError and OSError."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed with the shelf
        start = self._end
        self._file.seek(start)
        chunk = head
        while chunk:
            self._file.write(chunk)
            chunk = entry.read(CHUNK)
        self._file.flush()
        self._end = self._file.tell()
        part: Any = _Part(self._file.fileno(), start, self._end - start)
        return Stored(entry.name, kind, io.BufferedReader(part, CHUNK))

    def release(self, stored: Stored) -> None:
        """Free the space of the last file that was stored."""
        if self._file is not None:
            self._end -= stored.size
            self._file.truncate(self._end)


class _Part(io.RawIOBase):
    """A part of a file, read without its position."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._place))
        data = os.pread(self._descriptor, size, self._start + self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
