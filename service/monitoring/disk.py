"""The data folder: the bytes of its disk, and when a backup and a verification last ended, from files in it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from service.monitoring import last_runs
from service.monitoring.last_runs import LastRun


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Free and total bytes of the file system, and the last runs by name."""

    free_bytes: int
    size_bytes: int
    last_runs: dict[str, LastRun]


def read(root: Path) -> DataFolder:
    """Return the figures of the data folder. Raises OSError."""
    usage = shutil.disk_usage(root)
    return DataFolder(usage.free, usage.total, last_runs.read_all(root))
