"""Archives: reads an upload as a stream of files, from zip, tar, npz or Parquet.

The format is detected by magic bytes. Nothing is written to disk, so a name in an archive is never used as a path; an
unsafe path rejects the whole upload nevertheless. Readers yield items until an error, which they raise as PackError.
"""

import errno
import gzip
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

import zstandard

from ssl_core.config import Reading
from ssl_core.data import folder_layout
from ssl_core.data.items import BadFile, Found, Item, PackError
from worker.uploads import npz, parquet, tar
from worker.uploads.limits import Meter

Reader = Callable[[IO[bytes], Meter], Iterator[Found]]

DEFAULTS = Reading()
_SUPPORTED = "zip, tar, tar.gz, tar.xz, tar.zst, npz and Parquet"
_CHUNK = 2**20
_MAX_WINDOW = 2**27  # of zstd: 128 MiB, as `zstd --long` needs
_ZIP_HEADER_BYTES = 30  # of a file, without its name
_ZIP_ENCRYPTED = 0x1 | 0x40 | 0x2000
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile does not bound the output of other methods
_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)
_ZIP_TYPES = {
    stat.S_IFLNK: BadFile("", "symlink", "The entry is a symbolic link."),
    stat.S_IFCHR: BadFile("", "device", "The entry is a device."),
    stat.S_IFBLK: BadFile("", "device", "The entry is a device."),
    stat.S_IFIFO: BadFile("", "fifo", "The entry is a named pipe."),
    stat.S_IFSOCK: BadFile("", "device", "The entry is a socket."),
}


def read(file: IO[bytes], meter: Meter, reading: Reading = DEFAULTS) -> Iterator[Found]:
    """Yield the upload's files in archive order. Raises PackError."""
    head = file.read(512)
    file.seek(0)
    for magic, reader in READERS.items():
        if head.startswith(magic):
            return reader(file, meter)
    if tar.is_header(head):
        return tar.read(file, meter)
    raise PackError("not_an_archive", f"The file is not an archive of a supported format: {_SUPPORTED}.")


def read_zip(file: IO[bytes], meter: Meter) -> Iterator[Found]:
    """Yield the files of a zip archive, or the images of an npz one."""
    with _open_zip(file) as archive:
        entries = _list_zip_entries(archive, file)
        names = {entry.filename for entry in entries}
        if names and all(name.endswith(".npy") for name in names):
            yield from npz.read(archive, meter)
            return
        for entry in entries:
            meter.add_entry()
            name = tar.clean_path(entry.filename)
            if not entry.is_dir():
                yield _read_zip_entry(archive, entry, name, meter)


def read_gzip(file: IO[bytes], meter: Meter) -> Iterator[Found]:
    """Yield the files of a gzipped tar archive."""
    with gzip.GzipFile(fileobj=file, mode="rb") as stream:
        yield from _read_tar(stream, meter, (gzip.BadGzipFile, zlib.error))


def read_xz(file: IO[bytes], meter: Meter) -> Iterator[Found]:
    """Yield the files of a tar archive packed with xz."""
    with lzma.LZMAFile(file) as stream:
        yield from _read_tar(stream, meter, (lzma.LZMAError,))


def read_zstd(file: IO[bytes], meter: Meter) -> Iterator[Found]:
    """Yield the files of a tar archive packed with zstd."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    with unpacker.stream_reader(file, read_across_frames=True, closefd=False) as stream:
        yield from _read_tar(stream, meter, (zstandard.ZstdError,))


READERS: dict[bytes, Reader] = {
    b"PK\x03\x04": read_zip,
    b"PK\x05\x06": read_zip,
    b"\x1f\x8b": read_gzip,
    b"\xfd7zXZ\x00": read_xz,
    b"\x28\xb5\x2f\xfd": read_zstd,
    b"PAR1": parquet.read,
}


def _read_tar(stream: tar.Stream, meter: Meter, damage: tuple[type[Exception], ...]) -> Iterator[Found]:
    try:
        yield from tar.read(stream, meter)
    except EOFError as error:
        raise tar.truncated_error() from error
    except damage as error:
        raise PackError(
            "corrupt_archive", f"The archive is damaged: {folder_layout.clean_text(str(error))}."
        ) from error


def _open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except UnicodeDecodeError as error:
        raise PackError("corrupt_archive", "A file name in the archive is not valid UTF-8.") from error
    except NotImplementedError as error:
        raise PackError("corrupt_archive", f"The zip archive has an unsupported format: {error}.") from error
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        # EINVAL: the central directory lies outside of the file. Other OSErrors are faults of the disk.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise PackError(
            "truncated_archive", "The zip archive is truncated or damaged: its central directory cannot be read."
        ) from error


def _list_zip_entries(archive: zipfile.ZipFile, file: IO[bytes]) -> list[zipfile.ZipInfo]:
    size = os.fstat(file.fileno()).st_size
    end = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if not 0 <= entry.header_offset < size:
            raise PackError("corrupt_archive", "The zip archive is damaged: it lists files outside of itself.")
        if entry.header_offset < end:  # one file's data, read many times
            raise PackError("corrupt_archive", "The zip archive is damaged: its files overlap.")
        end = entry.header_offset + _ZIP_HEADER_BYTES + entry.compress_size
    return archive.infolist()


def _read_zip_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, meter: Meter) -> Item | BadFile:
    fault = _ZIP_TYPES.get(stat.S_IFMT(entry.external_attr >> 16))
    if fault is not None:
        return BadFile(name, fault.code, fault.detail)
    if entry.flag_bits & _ZIP_ENCRYPTED:
        raise PackError("encrypted", "The archive is encrypted; pack the images without a password.")
    if entry.compress_type not in _ZIP_METHODS:
        return BadFile(name, "unsupported_compression", "The entry is neither stored nor deflated.")
    try:
        data = _read_zip_data(archive, entry, meter)
    except _ZIP_DAMAGE as error:
        return BadFile(name, "corrupt_entry", f"The entry is damaged: {folder_layout.clean_text(str(error))}.")
    if len(data) > meter.limits.image_bytes:
        return tar.too_large_file(name, meter)
    if len(data) < entry.file_size:
        return BadFile(name, "corrupt_entry", "The entry is damaged: it is shorter than the archive declares.")
    return Item(name, data)


def _read_zip_data(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, meter: Meter) -> bytes:
    """Return at most `image_bytes + 1` bytes of the entry."""
    data = bytearray()
    with archive.open(entry) as stream:
        while len(data) <= meter.limits.image_bytes:
            chunk = stream.read(min(_CHUNK, meter.limits.image_bytes + 1 - len(data)))
            if not chunk:
                break
            meter.add_bytes(len(chunk))
            data += chunk
    return bytes(data)
