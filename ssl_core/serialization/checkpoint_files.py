"""The files of a run's checkpoints in their folder: names, the newest, and the deletion of old ones. Without torch."""

import re
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d{9,})\.pt")


def file_name(step: int) -> str:
    """Return the file name of the checkpoint of a step."""
    return f"checkpoint-{step:09d}.pt"


def find_newest(directory: Path) -> Path | None:
    """Return the checkpoint of the highest step in the folder, if any."""
    found = _list_by_step(directory)
    return found[max(found)] if found else None


def prune(directory: Path, keep: int, up_to: int) -> None:
    """Of the checkpoints up to the step `up_to`, delete all but the newest `keep`; later ones stay.

    A file that cannot be deleted now is left for the next call.
    """
    with suppress(OSError):
        found = _list_by_step(directory)
        for step in sorted(step for step in found if step <= up_to)[:-keep]:
            found[step].unlink(missing_ok=True)


def delete_all(directory: Path) -> None:
    """Delete all checkpoints in the folder."""
    for path in _list_by_step(directory).values():
        path.unlink(missing_ok=True)


def _list_by_step(directory: Path) -> dict[int, Path]:
    return {int(match[1]): path for path in directory.glob("*.pt") if (match := _NAME.fullmatch(path.name))}
