"""Zip archives: their entries in the order of the central directory, unpacked in pieces of bounded size.

The standard library reads the directory; entries are unpacked here, because `zipfile` bounds the output of no method
but deflate, and refuses entries whose name stands in another code page.
"""

import bz2
import errno
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol

import zstandard

from ssl_core.data import clean_names
from ssl_core.data.items import BadFile, PackError
from worker.uploads import zip_names
from worker.uploads.entries import BadEntry, Entry, Stream, Walked, clean_path, unfollowed_link
from worker.uploads.limits import Meter

_HEADER = struct.Struct("<4s22xHH")  # of a file; its name and extra field follow
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_PACKED_CHUNK = 2**16
_MAX_LZMA_BYTES = 2**28  # of memory; LZMA's largest presets take 64 MiB
_MAX_WINDOW = 2**27  # of zstd
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, ValueError, OSError)
_TYPES = {
    stat.S_IFLNK: BadFile("", "symlink", "The entry is a symbolic link."),
    stat.S_IFCHR: BadFile("", "device", "The entry is a device."),
    stat.S_IFBLK: BadFile("", "device", "The entry is a device."),
    stat.S_IFIFO: BadFile("", "fifo", "The entry is a named pipe."),
    stat.S_IFSOCK: BadFile("", "device", "The entry is a socket."),
}
_METHODS = {
    0: "stored",
    1: "shrink",
    6: "implode",
    8: "deflate",
    9: "Deflate64",
    12: "bzip2",
    14: "LZMA",
    93: "Zstandard",
    95: "XZ",
    98: "PPMd",
}
_READ_METHODS = (0, 8, 12, 14, 93)


class ZipArchive:
    """The entries of a zip archive with their clean names. Raises PackError."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._archive = _open(file)
        self.entries = _list_entries(self._archive, file)
        self.names, self._guess = zip_names.decode(self.entries)

    def walk(self, meter: Meter) -> Iterator[Walked]:
        """Yield the files of the archive. Raises PackError."""
        if self._guess is not None:
            yield self._guess
        for entry, raw in zip(self.entries, self.names, strict=True):
            meter.add_entry()
            name = clean_path(raw)
            if raw.endswith(("/", "\\")) and (raw.endswith("/") or entry.file_size == 0):
                continue
            bad = self._find_fault(entry, name)
            if bad is None:
                yield Entry(name, self.open(entry, name, meter).read)
                continue
            yield bad
            if bad.code == "symlink":
                yield unfollowed_link(name)

    def open(self, entry: zipfile.ZipInfo, name: str, meter: Meter) -> Stream:
        """Return the unpacked bytes of the entry. Its `read` raises BadEntry."""
        return _EntryStream(self._file, entry, name, meter)

    def _find_fault(self, entry: zipfile.ZipInfo, name: str) -> BadFile | None:
        fault = _TYPES.get(stat.S_IFMT(entry.external_attr >> 16))
        if fault is not None:
            return BadFile(name, fault.code, fault.detail)
        if entry.flag_bits & _ENCRYPTED:
            raise PackError("encrypted", "The archive is encrypted; pack the images without a password.")
        return find_unsupported_method(entry, name)


def find_unsupported_method(entry: zipfile.ZipInfo, name: str) -> BadFile | None:
    """Return the fault of an entry that is packed by a method that is not read."""
    if entry.compress_type in _READ_METHODS:
        return None
    method = _METHODS.get(entry.compress_type, f"method {entry.compress_type}")
    detail = f"The entry is packed with {method}; deflate, bzip2, LZMA and Zstandard are read, and stored entries."
    return BadFile(name, "unsupported_compression", detail)


class _EntryStream:
    """The unpacked bytes of an entry, up to its declared size, with its checksum compared at the end."""

    def __init__(self, file: IO[bytes], entry: zipfile.ZipInfo, name: str, meter: Meter) -> None:
        self._file = file
        self._entry = entry
        self._name = name
        self._meter = meter
        self._stream: Stream | None = None
        self._left = entry.file_size
        self._checksum = 0

    def read(self, size: int, /) -> bytes:
        try:
            data = self._read(min(size, self._left))
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            detail = f"The entry is damaged: {clean_names.clean_text(str(error))}."
            raise BadEntry(BadFile(self._name, "corrupt_entry", detail)) from error
        self._meter.add_bytes(len(data))
        return data

    def _read(self, size: int) -> bytes:
        if self._stream is None:
            self._stream = _open_entry(self._file, self._entry)
        data = self._stream.read(size) if size else b""
        self._left -= len(data)
        self._checksum = zlib.crc32(data, self._checksum)
        if size and not data:
            raise EOFError("it is shorter than the archive declares")
        if not self._left and self._checksum != self._entry.CRC:
            raise zipfile.BadZipFile("its checksum differs")
        return data


class _Decompressor(Protocol):
    """As those of bz2 and lzma."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Inflater:
    """zlib's decompressor with the interface of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


class _Packed:
    """The packed bytes of an entry. Reads at the place where it left off, wherever the file has been moved to."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._place = start
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        self._file.seek(self._place)
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._place += len(data)
        self._left -= len(data)
        return data


class _Unpacked:
    """The output of a decompressor."""

    def __init__(self, packed: Stream, decompressor: _Decompressor, header: bytes = b"") -> None:
        self._packed = packed
        self._decompressor = decompressor
        self._header = header

    def read(self, size: int, /) -> bytes:
        while not self._decompressor.eof:
            data, self._header = self._header, b""
            if not data and self._decompressor.needs_input:
                data = self._packed.read(_PACKED_CHUNK)
            unpacked = self._decompressor.decompress(data, size)
            if unpacked:
                return unpacked
            if not data and self._decompressor.needs_input:
                break
        return b""


def _open_entry(file: IO[bytes], entry: zipfile.ZipInfo) -> Stream:
    file.seek(entry.header_offset)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile("its header cannot be read")
    _, name_size, extra_size = _HEADER.unpack(header)
    name = file.read(name_size)
    if name != entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437"):
        raise zipfile.BadZipFile("its name differs from the directory's")
    packed = _Packed(file, entry.header_offset + _HEADER.size + name_size + extra_size, entry.compress_size)
    match entry.compress_type:
        case 0:
            return packed
        case 12:
            return _Unpacked(packed, bz2.BZ2Decompressor())
        case 14:
            return _Unpacked(packed, *_start_lzma(packed))
        case 93:
            source: Any = packed
            reader: Stream = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(
                source, read_across_frames=True
            )
            return reader
    return _Unpacked(packed, _Inflater())


def _start_lzma(packed: Stream) -> tuple[lzma.LZMADecompressor, bytes]:
    """Return a decompressor, and the header of an .lzma file, which zip stores as version, size and properties."""
    start = packed.read(4)
    size = int.from_bytes(start[2:4], "little")
    if len(start) < 4 or size != 5:
        raise lzma.LZMAError("the header of LZMA cannot be read")
    header = packed.read(size) + b"\xff" * 8
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_LZMA_BYTES), header


def _open(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except UnicodeDecodeError as error:
        raise PackError("corrupt_archive", "A file name in the archive is not valid UTF-8.") from error
    except NotImplementedError as error:
        raise PackError("corrupt_archive", f"The zip archive has an unsupported format: {error}.") from error
    except (zipfile.BadZipFile, ValueError, OSError, struct.error) as error:
        # EINVAL: the central directory lies outside of the file. Other OSErrors are faults of the disk.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise PackError(
            "truncated_archive", "The zip archive is truncated or damaged: its central directory cannot be read."
        ) from error


def _list_entries(archive: zipfile.ZipFile, file: IO[bytes]) -> Sequence[zipfile.ZipInfo]:
    size = file.seek(0, 2)
    end = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if not 0 <= entry.header_offset < size:
            raise PackError("corrupt_archive", "The zip archive is damaged: it lists files outside of itself.")
        if entry.header_offset < end:  # one file's data, read many times
            raise PackError("corrupt_archive", "The zip archive is damaged: its files overlap.")
        end = entry.header_offset + _HEADER.size + entry.compress_size
    return archive.infolist()
