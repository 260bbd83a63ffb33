"""The manifest of a backup: every file with its SHA-256, and what was damaged when it was read.

manifest.json       this file; it has a checksum of its own
twoviews.db         the database as SQLite, whatever the service uses
credentials.json    of a service that `twoviews up` runs
data/               the files that the database names, at their paths in the data folder
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from service.errors import BackupUnusable
from ssl_core.checksums import document
from ssl_core.errors import Corrupt
from ssl_core.files import write_atomic

FILE = "manifest.json"
DATABASE = "twoviews.db"
CREDENTIALS = "credentials.json"
DATA = "data"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a backup; `modified_ns` is that of the file it was copied from."""

    sha256: str
    size_bytes: int
    modified_ns: int


@dataclass
class Manifest:
    """What a backup holds. Paths are relative to its folder, with `/`."""

    created_at: float  # Unix seconds; the time of the snapshot
    revision: str  # of the database's schema
    database: str  # sqlite | postgresql: that of the service
    files: dict[str, Entry] = field(default_factory=dict)
    damaged: list[list[str]] = field(default_factory=list)  # kind, path of the item, file in it, outcome

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files.values())


def save(folder: Path, manifest: Manifest) -> None:
    """Write the manifest in one step. Raises OSError."""
    sealed = document.seal({"format": FORMAT, **asdict(manifest)})
    write_atomic(folder / FILE, json.dumps(sealed, indent=0).encode())


def load(folder: Path) -> Manifest:
    """Return the manifest of a backup. Raises BackupUnusable when it cannot be read or has another format."""
    try:
        fields: dict[str, Any] = document.read(folder / FILE)
    except OSError as error:
        raise BackupUnusable(f"{folder} is not a backup: {FILE} cannot be read ({error.strerror}).") from error
    except Corrupt as error:
        raise BackupUnusable(f"{folder / FILE} is damaged: it does not have its checksum.") from error
    if fields.pop("format", None) != FORMAT or fields.pop(document.FIELD, None) is None:
        raise BackupUnusable(f"{folder} has a format that this version cannot read.")
    files = {path: Entry(**entry) for path, entry in fields.pop("files").items()}
    return Manifest(**fields, files=files)
