"""A file that becomes real in one step: whoever sees its name sees all of it, also after a power cut."""

import errno
import hashlib
import mimetypes
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from ssl_core.events import Artifact

FULL = (errno.ENOSPC, errno.EDQUOT)  # an OSError's numbers when there is no room


@dataclass(frozen=True)
class WrittenFile:
    path: Path
    sha256: str
    size_bytes: int


def write_atomic(path: Path, data: bytes | memoryview) -> WrittenFile:
    """Write `data` under a temporary name beside `path`, make it durable, and give it its name."""
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
    """Write a file that is worth showing and return the event that tells of it. Raises OSError."""
    file = write_atomic(directory / name, data)
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Artifact(name, name, media_type, file.sha256, file.size_bytes)
