"""Downloads: write a response body to a file atomically, and check its SHA-256."""

import contextlib
import hashlib
import os
import secrets
import time
from pathlib import Path

import httpx

from twoviews.errors import CannotWrite, Corrupt
from twoviews.upload import Progress

FILE_NAMES = {
    "weights": "weights.safetensors",
    "heads": "heads.safetensors",
    "card": "model.json",
    "readme": "README.md",
}
_PART = ".part"  # end of the name of an unfinished download, `.<name>.<random>.part`
_LEFTOVER_SECONDS = 3600.0


def target_path(target: str | Path, model_id: str, file: str) -> Path:
    """Return `target`, or `<model_id>.<file name>` in it when it is a folder, and create the folder of that file.

    A folder that does not exist yet is a string that ends with a slash.
    """
    is_folder = Path(target).is_dir() or str(target).endswith(("/", os.sep))
    path = Path(target, f"{model_id}.{FILE_NAMES.get(file, file)}") if is_folder else Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def check_file_name(name: str) -> str:
    """Return the name of an artifact, which must be a plain file name. Raises ValueError."""
    if not name or name == ".." or Path(name).name != name or "\\" in name or not name.isprintable():
        raise ValueError(f"not a file name: {name!r}")
    return name


def save(answer: httpx.Response, path: Path, sha256: str | None, progress: Progress | None) -> Path:
    """Write the body to `path` atomically and return it.

    Raises Corrupt when its SHA-256 is not `sha256`, and CannotWrite. What downloads of the same file left here when
    they were killed, an hour ago or more, is removed.
    """
    total, received, digest = int(answer.headers.get("Content-Length", 0)), 0, hashlib.sha256()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    try:
        _remove_leftovers(path)
        with temporary.open("xb") as file:
            for chunk in answer.iter_bytes(2**20):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                if progress is not None:
                    progress(received, total)
            if sha256 is not None and digest.hexdigest() != sha256:
                raise Corrupt(f"{path.name} has SHA-256 {digest.hexdigest()} instead of {sha256}.")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # closed: Windows does not rename an open file
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CannotWrite(path, error) from error
        raise
    return path


def _remove_leftovers(path: Path) -> None:
    for left in path.parent.iterdir():
        if left.name.startswith(f".{path.name}.") and left.name.endswith(_PART):
            with contextlib.suppress(OSError):  # another download has removed it
                if left.stat().st_mtime < time.time() - _LEFTOVER_SECONDS:
                    left.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
