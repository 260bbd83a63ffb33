"""Entries of archives: one file at a time, read in pieces that the meter counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ssl_core.data import clean_names
from ssl_core.data.items import BadFile, Finding, Item, PackError
from worker.uploads.limits import Meter

CHUNK = 2**20
HEAD = 512  # bytes that show the format of a file


class Stream(Protocol):
    """A binary stream without seek."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an archive whose reader stands at its first byte.

    read: returns up to that many of the next bytes, none at the end; counted by the meter. Raises BadEntry.
    size: bytes, where the archive's reader relies on the declared size.
    """

    name: str
    read: Callable[[int], bytes]
    size: int | None = None


Walked = Entry | BadFile | Finding  # what the readers of archives yield


class BadEntry(Exception):
    """The rest of an entry cannot be read."""

    def __init__(self, bad: BadFile) -> None:
        self.bad = bad
        super().__init__(bad.detail)


class UnsafePath(PackError):
    """A path leads out of its archive: the whole upload is refused."""


def read_item(entry: Entry, head: bytes, meter: Meter) -> Item | BadFile:
    """Return the whole file, whose first bytes are `head`. Raises BadEntry."""
    most = meter.limits.image_bytes
    if entry.size is not None and entry.size > most:
        return too_large_file(entry.name, meter)
    data = bytearray(head)
    while len(data) <= most and (chunk := entry.read(min(CHUNK, most + 1 - len(data)))):
        data += chunk
    return too_large_file(entry.name, meter) if len(data) > most else Item(entry.name, bytes(data))


def read_exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """Return the next `size` bytes; fewer only at the end."""
    parts = []
    while size and (chunk := read(min(size, CHUNK))):
        parts.append(chunk)
        size -= len(chunk)
    return b"".join(parts)


def clean_path(raw: str) -> str:
    """Return the normalized path. Raises UnsafePath when it is absolute or leads out of the archive."""
    try:
        return clean_names.clean_path(raw)
    except clean_names.UnsafePath as error:
        raise UnsafePath("unsafe_path", f"The archive holds a path that leads out of it: {error}.") from error


def too_large_file(name: str, meter: Meter) -> BadFile:
    return BadFile(name, "file_too_large", f"The file has more than {meter.limits.image_bytes:,} bytes.")


def unfollowed_link(name: str) -> Finding:
    return Finding("links_not_followed", "Links in an archive are not followed; pack the files themselves.", name)
