"""Tar: a stream of 512-byte blocks as a stream of files.

Headers are parsed by the standard library; the walk from one to the next is ours, because `tarfile` ends quietly at a
damaged header, and keeps whatever an extended header claims in memory.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ssl_core.data import folder_layout
from ssl_core.data.pack import BadFile, Item, PackError
from worker.uploads.limits import Meter

_BLOCK = 512
_CHUNK = 2**20
_MAX_EXTENSION = 2**20
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EMPTY_TYPES = {
    tarfile.LNKTYPE: BadFile("", "hardlink", "The entry is a hard link."),
    tarfile.SYMTYPE: BadFile("", "symlink", "The entry is a symbolic link."),
    tarfile.CHRTYPE: BadFile("", "device", "The entry is a device."),
    tarfile.BLKTYPE: BadFile("", "device", "The entry is a device."),
    tarfile.FIFOTYPE: BadFile("", "fifo", "The entry is a named pipe."),
}


class Stream(Protocol):
    """Anything that gives its bytes from first to last."""

    def read(self, size: int, /) -> bytes: ...


def is_header(block: bytes) -> bool:
    """Tell whether the bytes, of which 512 are needed, begin a tar archive, be it an empty one."""
    if len(block) < _BLOCK:
        return False
    try:
        tarfile.TarInfo.frombuf(block[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return not any(block[:_BLOCK])
    return True


def read(stream: Stream, meter: Meter) -> Iterator[Item | BadFile]:
    """Yield the files of the archive. Raises PackError, and what the stream itself raises."""
    blocks = _Blocks(stream, meter)
    extension = _Extension()
    while (header := blocks.header()) is not None:
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            extension = extension.extended(header.type, blocks.extension(header.size))
            continue
        if header.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            blocks.extension(header.size)
            continue
        meter.add_entry()
        found = _entry(header, extension, blocks, meter)
        extension = _Extension()
        if found is not None:
            yield found
    blocks.drain()


def safe_path(raw: str) -> str:
    """Return the clean path. Raises PackError when it is absolute or leads out of the archive."""
    try:
        return folder_layout.clean_path(raw)
    except folder_layout.UnsafePath as error:
        raise PackError("unsafe_path", f"The archive holds a path that leads out of it: {error}.") from error


def too_large(name: str, meter: Meter) -> BadFile:
    return BadFile(name, "file_too_large", f"The file has more than {meter.limits.image_bytes:,} bytes.")


def truncated() -> PackError:
    return PackError("truncated_archive", "The archive is cut short.")


@dataclass(frozen=True, slots=True)
class _Extension:
    """What extended headers say of the entry that follows them."""

    path: str | None = None
    size: int | None = None
    sparse: bool = field(default=False)

    def extended(self, kind: bytes, data: bytes) -> "_Extension":
        if kind == tarfile.GNUTYPE_LONGNAME:
            return _Extension(_text(data.split(b"\0", 1)[0]), self.size, self.sparse)
        records = dict(_records(data))
        path, size = records.get("path"), records.get("size")
        return _Extension(
            self.path if path is None else path,
            self.size if size is None else _number(size),
            self.sparse or any(key.startswith("GNU.sparse.") for key in records),
        )


def _entry(header: tarfile.TarInfo, extension: _Extension, blocks: "_Blocks", meter: Meter) -> Item | BadFile | None:
    raw = header.name if extension.path is None else extension.path
    name = safe_path(raw)
    empty = _EMPTY_TYPES.get(header.type)
    if empty is not None:
        return BadFile(name, empty.code, empty.detail)
    if header.type == tarfile.DIRTYPE:
        return None
    if header.type == tarfile.GNUTYPE_SPARSE:  # blocks of a map follow, which only GNU tar can say how many
        raise PackError("unsupported_entry", f"The archive holds a sparse file, {name}; pack it without --sparse.")
    size = header.size if extension.size is None else extension.size
    if extension.sparse or header.type not in _REGULAR:
        blocks.skip(size)
        return BadFile(name, "unsupported_entry", "The entry is not a plain file.")
    if size > meter.limits.image_bytes:
        blocks.skip(size)
        return too_large(name, meter)
    return Item(name, blocks.data(size))


class _Blocks:
    """The archive's bytes, counted, and never more of them in memory than one file."""

    def __init__(self, stream: Stream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter
        self._started = False

    def header(self) -> tarfile.TarInfo | None:
        """Return the next header, or None at the archive's end. Raises PackError."""
        block = self._take(_BLOCK)
        if len(block) == _BLOCK and not any(block):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if not self._started and block:
                raise PackError("not_an_archive", "The file is compressed, but what it holds is not a tar.") from error
            if len(block) < _BLOCK:
                raise truncated() from error
            raise PackError("corrupt_archive", "The archive is damaged: a header cannot be read.") from error
        if header.size < 0:
            raise PackError("corrupt_archive", "The archive is damaged: a size is below zero.")
        self._started = True
        return header

    def data(self, size: int) -> bytes:
        data = self._take(size)
        padding = -size % _BLOCK
        if len(data) < size or len(self._take(padding)) < padding:
            raise truncated()
        return data

    def extension(self, size: int) -> bytes:
        if size > _MAX_EXTENSION:
            raise PackError("corrupt_archive", f"The archive is damaged: a header of {size:,} bytes.")
        return self.data(size)

    def skip(self, size: int) -> None:
        left = size + -size % _BLOCK
        while left:
            chunk = self._take(min(left, _CHUNK))
            if not chunk:
                raise truncated()
            left -= len(chunk)

    def drain(self) -> None:
        """Read on to the end, where compressed streams keep their checksum."""
        while self._take(_CHUNK):
            pass

    def _take(self, size: int) -> bytes:
        """Return so many bytes, fewer only at the stream's end."""
        parts = []
        while size and (chunk := self._stream.read(min(size, _CHUNK))):
            self._meter.add_bytes(len(chunk))
            parts.append(chunk)
            size -= len(chunk)
        return b"".join(parts)


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield key and value of each pax record: `<length> <key>=<value>\\n`, where the length counts itself."""
    while data.rstrip(b"\0"):
        digits, space, _ = data[:20].partition(b" ")
        length = _number(_text(digits))
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        if not space or not equals or data[length - 1 : length] != b"\n":
            raise PackError("corrupt_archive", "The archive is damaged: an extended header cannot be read.")
        yield _text(key), _text(value)
        data = data[length:]


def _number(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise PackError("corrupt_archive", "The archive is damaged: an extended header holds no number.")
    return int(digits)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
