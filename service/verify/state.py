"""The state of a verification: what has been checked and found, in one file, so that a killed one is continued."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ssl_core.checksums import document
from ssl_core.errors import Corrupt
from ssl_core.files import write_atomic

FILE = "verify.json"
FORMAT = 1


@dataclass
class State:
    """Items up to `after` (kind and path) have been checked."""

    started_at: float
    after: list[str] = field(default_factory=list)
    items: int = 0
    bytes_read: int = 0
    unchecked: int = 0  # files without a recorded SHA-256
    damaged: list[list[str]] = field(default_factory=list)  # kind, path of the item, file in it, outcome


def load(folder: Path) -> State | None:
    """Return the state that an interrupted verification left in the data folder, if it can be read."""
    try:
        fields = document.read(folder / FILE)
        del fields[document.FIELD]
        return State(**fields) if fields.pop("format") == FORMAT else None
    except (OSError, Corrupt, KeyError, TypeError):
        return None


def save(folder: Path, state: State) -> None:
    """Write the state in one step. Raises OSError."""
    write_atomic(folder / FILE, json.dumps(document.seal({"format": FORMAT, **asdict(state)})).encode())


def remove(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)
