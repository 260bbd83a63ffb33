"""Files of reports: written into the run's directory, or a warning where there is no room."""

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from ssl_core.events import Artifact, Log
from ssl_core.files import FULL, write_artifact

NamedFiles = Iterator[tuple[str, bytes]]  # names and contents


def write_reports(directory: Path, make: Callable[[], NamedFiles]) -> Iterator[Artifact | Log]:
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
