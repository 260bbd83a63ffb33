"""Writers of the client: a download into a folder of the user's."""

import hashlib
from pathlib import Path
from typing import Any

import httpx

from tests.faults.syscalls.writer import Writer
from twoviews import download
from twoviews.errors import CannotWrite

_OLD, _NEW = b"old weights" * 1000, b"new weights" * 200_000


def _prepare(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(_OLD)


def _write(folder: Path) -> dict[str, Any]:
    answer = httpx.Response(200, content=_NEW)
    try:
        target = download.target_path(folder / "model.safetensors", "mdl_1", "weights")
        download.save(answer, target, hashlib.sha256(_NEW).hexdigest(), None)
    except CannotWrite as error:
        return {"code": "cannot_write", "detail": str(error)}
    return {}


def _look(folder: Path) -> str:
    return {_OLD: "old", _NEW: "new"}[(folder / "model.safetensors").read_bytes()]


WRITERS = (
    Writer(
        "download", "twoviews/download.py", _write, _look, _prepare, ("old",), user_folder=True, paths_in_errors=True
    ),
)
