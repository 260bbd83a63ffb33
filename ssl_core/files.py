"""Atomic file writes: a file appears under its name only when complete, also after a power failure."""

import errno
import hashlib
import mimetypes
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from ssl_core.events import Artifact

FULL = (errno.ENOSPC, errno.EDQUOT)  # `errno` of an OSError on a full disk or quota


@dataclass(frozen=True)
class WrittenFile:
    path: Path
    sha256: str
    size_bytes: int


def write_atomic(path: Path, data: bytes | memoryview) -> WrittenFile:
    """Write `data` under a temporary name beside `path`, fsync it, and rename it. Raises OSError."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return WrittenFile(path, hashlib.sha256(data).hexdigest(), len(data))


def write_artifact(directory: Path, name: str, data: bytes) -> Artifact:
    """Write a file that a job leaves and return its event. Raises OSError."""
    file = write_atomic(directory / name, data)
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Artifact(name, name, media_type, file.sha256, file.size_bytes)
