"""Report files: written into the run's directory, each with its Artifact event.

A report cannot fail the run: on a full disk, or when drawing fails, there is a warning instead.
"""

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from ssl_core.events import Artifact, Log
from ssl_core.files import FULL, write_artifact

NamedFiles = Iterator[tuple[str, bytes]]  # names and contents


def write_reports(directory: Path, render: Callable[[], NamedFiles]) -> Iterator[Artifact | Log]:
    """Write every file that `render` yields and yield its event. Raises OSError other than of a full disk."""
    try:
        for name, data in render():
            yield write_artifact(directory, name, data)
    except OSError as error:
        if error.errno not in FULL:
            raise
        yield Log(
            "warning", "The storage is full: a figure of the run was not written; the run continues.", "storage_full"
        )
    except Exception as error:  # noqa: BLE001 - a figure must not fail days of training
        traceback.print_exc()
        yield Log("warning", f"A figure of the run could not be drawn: {error}", "picture_failed")
