"""Checkpoints of a run: written atomically, and loaded without executing code in them."""

import pickle
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from ssl_core.errors import BadCheckpoint
from ssl_core.events import Log
from ssl_core.files import FULL, HashedStream, WrittenFile, make_folder, write_stream
from ssl_core.serialization.checkpoint_files import file_name

FORMAT = 1


def save(directory: Path, step: int, state: dict[str, Any]) -> WrittenFile:
    """Write `state` (tensors and plain values) as the checkpoint of `step`; the folder need not exist.

    It is hashed as it is written: of a state on the CPU no second copy is held, of one on a GPU one tensor at a time.
    """
    make_folder(directory)

    def write(stream: HashedStream) -> None:
        torch.save({"format": FORMAT, "step": step, **state}, stream)  # type: ignore[arg-type]  # it only writes

    return write_stream(directory / file_name(step), write)


def save_if_room(directory: Path, step: int, state: dict[str, Any]) -> WrittenFile | None:
    """Save; on a full disk return None."""
    try:
        return save(directory, step, state)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return None


def warn_storage_full(step: int) -> Log:
    """Return the warning that the disk is full and no checkpoint was written."""
    message = "The storage is full: no checkpoint of this step was written; the run continues and tries again."
    return Log("warning", message, "storage_full", {"step": step})


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
