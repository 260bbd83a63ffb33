"""Durable file writes: a file appears under its name only when complete, also after a power failure.

A temporary file is `.<name>.<random>.tmp` beside its final path. A killed writer leaves it; `Storage.sweep` removes it.
"""

import errno
import hashlib
import mimetypes
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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


def write_atomic(path: Path, data: bytes | memoryview, mode: int = 0o644) -> WrittenFile:
    """Write `data` under a temporary name beside `path`, fsync it, rename it, and fsync the folder.

    mode: permissions of the file, which no one else can read before. Raises OSError; `path` then has what it had
    before, or all of `data` when the folder could not be synced.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb", opener=_open_private) as file:
            file.write(data)
            os.chmod(temporary, mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # of a disk that has failed
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return WrittenFile(path, hashlib.sha256(data).hexdigest(), len(data))


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
