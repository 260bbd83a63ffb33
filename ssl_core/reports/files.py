"""Files of reports: written into the run's directory, each with its event.

A run does not fail because of a report: on a full disk, or when a report cannot be made, there is a warning instead.
"""

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from ssl_core.events import Artifact, Log
from ssl_core.files import FULL, write_artifact

NamedFiles = Iterator[tuple[str, bytes]]  # names and contents


def write_reports(directory: Path, make: Callable[[], NamedFiles]) -> Iterator[Artifact | Log]:
    """Write every file that `make` yields and yield its event; an OSError other than a full disk is raised."""
    try:
        for name, data in make():
            yield write_artifact(directory, name, data)
    except OSError as error:
        if error.errno not in FULL:
            raise
        yield Log("warning", "The storage is full: a picture of the run is missing; it goes on.", "storage_full")
    except Exception as error:  # noqa: BLE001 - days of training are worth more than a picture of them
        traceback.print_exc()
        yield Log("warning", f"A picture of the run could not be drawn: {error}", "picture_failed")
