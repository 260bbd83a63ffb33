"""Compressed streams: gzip, bzip2, xz and zstd, whose output is read in pieces of bounded size."""

import bz2
import gzip
import lzma
import zlib
from typing import IO

import zstandard

from ssl_core.data import clean_names
from ssl_core.data.items import PackError
from worker.uploads.entries import Stream

_MAX_WINDOW = 2**27  # of zstd: 128 MiB, as `zstd --long` needs
_DAMAGE = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError)
MAGICS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}


def find_format(head: bytes) -> str | None:
    """Return the format of the compressed file: gz, bz2, xz or zst."""
    return next((name for magic, name in MAGICS.items() if head.startswith(magic)), None)


def open_stream(file: IO[bytes], kind: str) -> Stream:
    """Return the unpacked bytes of the file. Its `read` raises PackError."""
    file.seek(0)
    match kind:
        case "gz":
            return _Checked(gzip.GzipFile(fileobj=file, mode="rb"))
        case "bz2":
            return _Checked(bz2.BZ2File(file))
        case "xz":
            return _Checked(lzma.LZMAFile(file))
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    return _Checked(unpacker.stream_reader(file, read_across_frames=True, closefd=False))


class _Checked:
    """A stream whose damage is a PackError."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except EOFError as error:
            raise PackError("truncated_archive", "The archive is truncated.") from error
        except _DAMAGE as error:
            raise _damaged(error) from error
        except OSError as error:  # bz2 has no exception of its own; those of the system have a number
            if error.errno is not None:
                raise
            raise _damaged(error) from error


def _damaged(error: Exception) -> PackError:
    return PackError("corrupt_archive", f"The archive is damaged: {clean_names.clean_text(str(error))}.")
