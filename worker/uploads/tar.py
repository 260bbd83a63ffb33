"""Tar archives: reads a stream of 512-byte blocks as a stream of files.

The standard library parses the headers; the loop over them is here, because `tarfile` ends silently at a damaged
header and loads extended headers of any declared size.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from ssl_core.data.items import BadFile, Finding, PackError
from worker.uploads import formats
from worker.uploads.entries import CHUNK, Entry, Stream, Walked, clean_path, read_exactly, unfollowed_link
from worker.uploads.limits import Meter

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_MAX_EXTENSION = 2**20
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EMPTY_TYPES = {
    tarfile.LNKTYPE: BadFile("", "hardlink", "The entry is a hard link."),
    tarfile.SYMTYPE: BadFile("", "symlink", "The entry is a symbolic link."),
    tarfile.CHRTYPE: BadFile("", "device", "The entry is a device."),
    tarfile.BLKTYPE: BadFile("", "device", "The entry is a device."),
    tarfile.FIFOTYPE: BadFile("", "fifo", "The entry is a named pipe."),
}


def walk(stream: Stream, meter: Meter) -> Iterator[Walked]:
    """Yield the files of the archive, and of archives that follow its end. Raises PackError."""
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
        yield from _read_entry(header, extension, blocks)
        extension = _ExtendedHeader()
    if blocks.bytes_behind_end:
        yield Finding(
            "bytes_behind_end",
            "Bytes that follow the end of an archive and are no archive themselves are not read.",
            f"{blocks.bytes_behind_end:,} bytes",
        )


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


def _read_entry(header: tarfile.TarInfo, extension: _ExtendedHeader, blocks: "_BlockReader") -> Iterator[Walked]:
    raw = header.name if extension.path is None else extension.path
    name = clean_path(raw)
    empty = _EMPTY_TYPES.get(header.type)
    if empty is not None:
        yield BadFile(name, empty.code, empty.detail)
        if header.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
            yield unfollowed_link(name)
        return
    if header.type == tarfile.DIRTYPE:
        return
    if header.type == tarfile.GNUTYPE_SPARSE:  # followed by a map of a length that only GNU tar knows
        raise PackError("unsupported_entry", f"The archive holds a sparse file, {name}; pack it without --sparse.")
    blocks.start_file(header.size if extension.size is None else extension.size)
    if extension.sparse or header.type not in _REGULAR:
        yield BadFile(name, "unsupported_entry", "The entry is not a regular file.")
    else:
        yield Entry(name, blocks.read_file, blocks.left)
    blocks.end_file()


class _BlockReader:
    """Reads and counts the archive's bytes.

    left: bytes of the present file that are still to be read.
    bytes_behind_end: that are neither zeros nor another archive.
    """

    def __init__(self, stream: Stream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter
        self._started = False
        self._padding = 0
        self.left = 0
        self.bytes_behind_end = 0

    def read_header(self) -> tarfile.TarInfo | None:
        """Return the next header, of this archive or of one that follows it; None at the end. Raises PackError."""
        block = self._take(_BLOCK)
        ended = False
        while block == _ZEROS:
            ended = True
            block = self._take(_BLOCK)
        if ended and not block:
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if ended:
                self._drain(block)
                return None
            if not self._started and block:
                raise PackError("not_an_archive", formats.explain_content(block)) from error
            if len(block) < _BLOCK:
                raise truncated_error() from error
            raise PackError("corrupt_archive", "The archive is damaged: a header cannot be read.") from error
        if header.size < 0:
            raise PackError("corrupt_archive", "The archive is damaged: a size is negative.")
        self._started = True
        return header

    def start_file(self, size: int) -> None:
        self.left, self._padding = size, -size % _BLOCK

    def read_file(self, size: int) -> bytes:
        """Return up to `size` of the next bytes of the file; none at its end. Raises PackError."""
        data = self._take(min(size, self.left, CHUNK))
        if not data and size and self.left:
            raise truncated_error()
        self.left -= len(data)
        return data

    def end_file(self) -> None:
        """Skip what is left of the file."""
        while self.left:
            self.read_file(CHUNK)
        if len(self._take(self._padding)) < self._padding:
            raise truncated_error()

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

    def _drain(self, block: bytes) -> None:
        """Read to the end, where compressed streams have their checksum."""
        while block:
            self.bytes_behind_end += len(block) - block.count(0)
            block = self._take(CHUNK)

    def _take(self, size: int) -> bytes:
        """Return `size` bytes; fewer only at the end of the stream."""
        data = read_exactly(self._stream.read, size)
        self._meter.add_bytes(len(data))
        return data


def _parse_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield key and value of each pax record: `<length> <key>=<value>\\n`, where the length counts itself."""
    start, end = 0, len(data.rstrip(b"\0"))
    while start < end:
        digits, space, _ = data[start : start + 20].partition(b" ")
        stop = start + _parse_number(_decode_text(digits))
        key, equals, value = data[start + len(digits) + 1 : stop - 1].partition(b"=")
        if not space or not equals or data[stop - 1 : stop] != b"\n":
            raise PackError("corrupt_archive", "The archive is damaged: an extended header cannot be read.")
        yield _decode_text(key), _decode_text(value)
        start = stop


def _parse_number(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise PackError("corrupt_archive", "The archive is damaged: an extended header has an invalid number.")
    return int(digits)


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
