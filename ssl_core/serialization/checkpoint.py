"""Checkpoints of a run: written atomically, and loaded without executing code in them."""

import io
import pickle
import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from ssl_core.errors import BadCheckpoint
from ssl_core.events import Log
from ssl_core.files import FULL, WrittenFile, make_folder, write_atomic

FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{9,})\.pt")


def save(directory: Path, step: int, state: dict[str, Any]) -> WrittenFile:
    """Write `state` (tensors and plain values) as the checkpoint of `step`; the folder need not exist."""
    make_folder(directory)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    return write_atomic(directory / file_name(step), buffer.getbuffer())


def save_and_prune(directory: Path, step: int, state: dict[str, Any], keep: int) -> WrittenFile | None:
    """Save, then delete all but the newest `keep`; on a full disk return None and delete nothing."""
    try:
        written = save(directory, step, state)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return None
    with suppress(OSError):  # the next save tries again
        prune(directory, keep)
    return written


def warn_storage_full(step: int) -> Log:
    """Return the warning that the disk is full and no checkpoint was written."""
    message = "The storage is full: no checkpoint of this step was written; the run continues and tries again."
    return Log("warning", message, "storage_full", {"step": step})


def file_name(step: int) -> str:
    """Return the file name of the checkpoint of a step."""
    return f"checkpoint-{step:09d}.pt"


def load(path: Path) -> dict[str, Any]:
    """Return the state that `save` wrote, with `format` and `step`, on the CPU. Raises BadCheckpoint.

    The file is a zip archive; torch does not compare its members with their CRC-32.
    """
    try:
        with ZipFile(path) as members:
            if (damaged := members.testzip()) is not None:
                raise BadZipFile(f"{damaged} does not have its CRC-32")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, BadZipFile) as error:
        raise BadCheckpoint(
            f"The checkpoint {path.name} cannot be read; it is missing, truncated or damaged."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("step"), int):
        raise BadCheckpoint(f"{path.name} is not a checkpoint of this version.")
    return state


def find_newest(directory: Path) -> Path | None:
    """Return the checkpoint of the highest step in the folder, if any."""
    found = _list_checkpoints(directory)
    return found[-1] if found else None


def prune(directory: Path, keep: int) -> None:
    """Delete all but the newest `keep`."""
    for path in _list_checkpoints(directory)[:-keep]:
        path.unlink(missing_ok=True)


def delete_all(directory: Path) -> None:
    """Delete all checkpoints in the folder."""
    for path in _list_checkpoints(directory):
        path.unlink(missing_ok=True)


def _list_checkpoints(directory: Path) -> list[Path]:
    """The folder's checkpoints, by ascending step."""
    steps = {path: int(match[1]) for path in directory.glob("*.pt") if (match := _NAME.fullmatch(path.name))}
    return sorted(steps, key=lambda path: steps[path])
