"""Checkpoints: files from which a run goes on, saved atomically and loaded without running any code in them."""

import io
import pickle
import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from ssl_core.errors import BadCheckpoint
from ssl_core.events import Log
from ssl_core.files import FULL, WrittenFile, write_atomic

FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{9,})\.pt")


def save(directory: Path, step: int, state: dict[str, Any]) -> WrittenFile:
    """Write `state` (tensors and plain values) as the checkpoint of `step`; the folder need not exist."""
    directory.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    return write_atomic(directory / name(step), buffer.getbuffer())


def keep(directory: Path, step: int, state: dict[str, Any], newest: int) -> WrittenFile | None:
    """Save, then delete all but the newest so many; None, and nothing deleted, when the storage is full."""
    try:
        written = save(directory, step, state)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return None
    prune(directory, newest)
    return written


def no_room(step: int) -> Log:
    """What to say of a checkpoint that found no room."""
    message = "The storage is full: there is no checkpoint of this step; the run goes on and tries again."
    return Log("warning", message, "storage_full", {"step": step})


def name(step: int) -> str:
    """Return what the checkpoint of a step is called."""
    return f"checkpoint-{step:09d}.pt"


def load(path: Path) -> dict[str, Any]:
    """Return what `save` was given, with `format` and `step`, on the CPU. Raises BadCheckpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, BadZipFile) as error:
        raise BadCheckpoint(
            f"The checkpoint {path.name} cannot be read; it is missing, cut short or damaged."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("step"), int):
        raise BadCheckpoint(f"{path.name} is not a checkpoint of this version.")
    return state


def newest(directory: Path) -> Path | None:
    """Return the checkpoint of the highest step in the folder, if there is one."""
    found = _all(directory)
    return found[-1] if found else None


def prune(directory: Path, keep: int) -> None:
    """Delete all but the newest `keep`."""
    for path in _all(directory)[:-keep]:
        path.unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Delete all."""
    for path in _all(directory):
        path.unlink(missing_ok=True)


def _all(directory: Path) -> list[Path]:
    """The folder's checkpoints, oldest step first."""
    steps = {path: int(match[1]) for path in directory.glob("*.pt") if (match := _NAME.fullmatch(path.name))}
    return sorted(steps, key=lambda path: steps[path])
