"""Last runs of maintenance: a file for each in the data folder has when it ended, and how many files were damaged."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ssl_core.files import write_atomic

Name = Literal["backup", "verify"]
NAMES: tuple[Name, ...] = ("backup", "verify")


@dataclass(frozen=True, slots=True)
class LastRun:
    """`finished_at` is in Unix seconds; `damaged` is the number of files found damaged or missing."""

    finished_at: float
    damaged: int = 0

    @property
    def age_seconds(self) -> float:
        return max(0.0, time.time() - self.finished_at)


def record(root: Path, name: Name, damaged: int = 0) -> None:
    """Record that a run has ended now. Raises OSError."""
    write_atomic(_path(root, name), json.dumps(asdict(LastRun(time.time(), damaged))).encode())


def read_all(root: Path) -> dict[str, LastRun]:
    """Return the last runs by name; one without a file, or with one that cannot be read, is left out."""
    found = {name: _read(_path(root, name)) for name in NAMES}
    return {name: run for name, run in found.items() if run is not None}


def _path(root: Path, name: Name) -> Path:
    return root / f"last_{name}.json"


def _read(path: Path) -> LastRun | None:
    try:
        fields = json.loads(path.read_bytes())
        return LastRun(float(fields["finished_at"]), int(fields["damaged"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
