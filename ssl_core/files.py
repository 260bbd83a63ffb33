"""Durable file writes: a file appears under its name only when complete, also after a power failure.

A temporary file is `.<name>.<random>.tmp` beside its final path. A killed writer leaves it; `Storage.sweep` removes it.
"""

import errno
import hashlib
import mimetypes
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ssl_core.events import Artifact

FULL = (errno.ENOSPC, errno.EDQUOT)  # `errno` of an OSError on a full disk or quota
# `errno` of an OSError by which a disk or a mount fails, whatever the program does.
AWAY = (
    errno.EIO,
    errno.EROFS,
    errno.ESTALE,
    errno.ENODEV,
    errno.ENXIO,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
)
TEMPORARY = ".*.tmp"  # a pattern for Path.glob


@dataclass(frozen=True)
class WrittenFile:
    path: Path
    sha256: str
    size_bytes: int


class HashedStream:
    """Passes on what is written to a file, in order, with its SHA-256 and size.

    After an OSError it takes no more and `error` is set: torch's writer of archives does not survive one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self.size_bytes = 0
        self._file, self._digest = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
            else:
                self._digest.update(data)
                self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: `write_stream` flushes the file."""

    def sha256(self) -> str:
        return self._digest.hexdigest()


def write_atomic(path: Path, data: bytes | memoryview, mode: int = 0o644) -> WrittenFile:
    """Write `data` as the file, as `write_stream` does. Raises OSError."""

    def write(stream: HashedStream) -> None:
        stream.write(data)

    return write_stream(path, write, mode)


def write_stream(path: Path, write: Callable[[HashedStream], None], mode: int = 0o644) -> WrittenFile:
    """Let `write` fill a temporary file beside `path`, fsync it, rename it, and fsync the folder.

    mode: permissions of the file, which no one else can read before. Raises OSError, and what `write` raises; `path`
    then has what it had before, or all that was written when the folder could not be synced.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb", opener=_open_private) as file:
            stream = HashedStream(file)
            write(stream)
            if stream.error is not None:
                raise stream.error
            os.chmod(temporary, mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # of a disk that has failed
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return WrittenFile(path, stream.sha256(), stream.size_bytes)


def sync(path: Path) -> None:
    """Make a file's bytes durable, or the names in a folder: those of new and renamed files, and the absence of
    removed ones. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """Create the folder and its missing parents durably, and return it. Raises OSError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)
    return folder


def remove_durably(path: Path) -> None:
    """Remove a file, if it is there, so that it does not come back after a power failure. Raises OSError."""
    if path.exists():
        path.unlink(missing_ok=True)
        sync(path.parent)


def describe(error: OSError) -> str:
    """Return the reason of the error without the path, such as "No space left on device"."""
    return type(error).__name__ if error.errno is None else os.strerror(error.errno)


def write_artifact(directory: Path, name: str, data: bytes) -> Artifact:
    """Write a file that a job leaves and return its event. Raises OSError."""
    file = write_atomic(directory / name, data)
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Artifact(name, name, media_type, file.sha256, file.size_bytes)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
