"""Tar archives: reads a stream of 512-byte blocks as a stream of files.

The standard library parses the headers; the loop over them is here, because `tarfile` ends silently at a damaged
header and loads extended headers of any declared size.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ssl_core.data import folder_layout
from ssl_core.data.items import BadFile, Found, Item, PackError
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
    """A binary stream without seek."""

    def read(self, size: int, /) -> bytes: ...


def is_header(block: bytes) -> bool:
    """Return whether the block of 512 bytes starts a tar archive, which may be empty."""
    if len(block) < _BLOCK:
        return False
    try:
        tarfile.TarInfo.frombuf(block[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return not any(block[:_BLOCK])
    return True


def read(stream: Stream, meter: Meter) -> Iterator[Found]:
    """Yield the files of the archive. Raises PackError, and the exceptions of the stream."""
    blocks = _BlockReader(stream, meter)
    extension = _ExtendedHeader()
    while (header := blocks.read_header()) is not None:
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            extension = extension.merge(header.type, blocks.read_extension(header.size))
            continue
        if header.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            blocks.read_extension(header.size)
            continue
        meter.add_entry()
        found = _read_entry(header, extension, blocks, meter)
        extension = _ExtendedHeader()
        if found is not None:
            yield found
    blocks.drain()


def clean_path(raw: str) -> str:
    """Return the normalized path. Raises PackError when it is absolute or leads out of the archive."""
    try:
        return folder_layout.clean_path(raw)
    except folder_layout.UnsafePath as error:
        raise PackError("unsafe_path", f"The archive holds a path that leads out of it: {error}.") from error


def too_large_file(name: str, meter: Meter) -> BadFile:
    return BadFile(name, "file_too_large", f"The file has more than {meter.limits.image_bytes:,} bytes.")


def truncated_error() -> PackError:
    return PackError("truncated_archive", "The archive is truncated.")


@dataclass(frozen=True, slots=True)
class _ExtendedHeader:
    """Fields of extended headers, which override those of the next entry."""

    path: str | None = None
    size: int | None = None
    sparse: bool = field(default=False)

    def merge(self, kind: bytes, data: bytes) -> "_ExtendedHeader":
        if kind == tarfile.GNUTYPE_LONGNAME:
            return _ExtendedHeader(_decode_text(data.split(b"\0", 1)[0]), self.size, self.sparse)
        records = dict(_parse_records(data))
        path, size = records.get("path"), records.get("size")
        return _ExtendedHeader(
            self.path if path is None else path,
            self.size if size is None else _parse_number(size),
            self.sparse or any(key.startswith("GNU.sparse.") for key in records),
        )


def _read_entry(
    header: tarfile.TarInfo, extension: _ExtendedHeader, blocks: "_BlockReader", meter: Meter
) -> Item | BadFile | None:
    raw = header.name if extension.path is None else extension.path
    name = clean_path(raw)
    empty = _EMPTY_TYPES.get(header.type)
    if empty is not None:
        return BadFile(name, empty.code, empty.detail)
    if header.type == tarfile.DIRTYPE:
        return None
    if header.type == tarfile.GNUTYPE_SPARSE:  # followed by a map of a length that only GNU tar knows
        raise PackError("unsupported_entry", f"The archive holds a sparse file, {name}; pack it without --sparse.")
    size = header.size if extension.size is None else extension.size
    if extension.sparse or header.type not in _REGULAR:
        blocks.skip(size)
        return BadFile(name, "unsupported_entry", "The entry is not a regular file.")
    if size > meter.limits.image_bytes:
        blocks.skip(size)
        return too_large_file(name, meter)
    return Item(name, blocks.read_data(size))


class _BlockReader:
    """Reads and counts the archive's bytes; holds at most one file in memory."""

    def __init__(self, stream: Stream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter
        self._started = False

    def read_header(self) -> tarfile.TarInfo | None:
        """Return the next header, or None at the archive's end. Raises PackError."""
        block = self._take(_BLOCK)
        if len(block) == _BLOCK and not any(block):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if not self._started and block:
                raise PackError(
                    "not_an_archive", "The file is compressed, but its content is not a tar archive."
                ) from error
            if len(block) < _BLOCK:
                raise truncated_error() from error
            raise PackError("corrupt_archive", "The archive is damaged: a header cannot be read.") from error
        if header.size < 0:
            raise PackError("corrupt_archive", "The archive is damaged: a size is negative.")
        self._started = True
        return header

    def read_data(self, size: int) -> bytes:
        data = self._take(size)
        padding = -size % _BLOCK
        if len(data) < size or len(self._take(padding)) < padding:
            raise truncated_error()
        return data

    def read_extension(self, size: int) -> bytes:
        if size > _MAX_EXTENSION:
            raise PackError("corrupt_archive", f"The archive is damaged: a header of {size:,} bytes.")
        return self.read_data(size)

    def skip(self, size: int) -> None:
        left = size + -size % _BLOCK
        while left:
            chunk = self._take(min(left, _CHUNK))
            if not chunk:
                raise truncated_error()
            left -= len(chunk)

    def drain(self) -> None:
        """Read to the end, where compressed streams have their checksum."""
        while self._take(_CHUNK):
            pass

    def _take(self, size: int) -> bytes:
        """Return `size` bytes; fewer only at the end of the stream."""
        parts = []
        while size and (chunk := self._stream.read(min(size, _CHUNK))):
            self._meter.add_bytes(len(chunk))
            parts.append(chunk)
            size -= len(chunk)
        return b"".join(parts)


def _parse_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield key and value of each pax record: `<length> <key>=<value>\\n`, where the length counts itself."""
    while data.rstrip(b"\0"):
        digits, space, _ = data[:20].partition(b" ")
        length = _parse_number(_decode_text(digits))
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        if not space or not equals or data[length - 1 : length] != b"\n":
            raise PackError("corrupt_archive", "The archive is damaged: an extended header cannot be read.")
        yield _decode_text(key), _decode_text(value)
        data = data[length:]


def _parse_number(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise PackError("corrupt_archive", "The archive is damaged: an extended header has an invalid number.")
    return int(digits)


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
