"""Downloads: write a response body to a file atomically, and check its SHA-256."""

import hashlib
import os
import tempfile
from pathlib import Path

import httpx

from twoviews.errors import Corrupt
from twoviews.upload import Progress

FILE_NAMES = {
    "weights": "weights.safetensors",
    "heads": "heads.safetensors",
    "card": "model.json",
    "readme": "README.md",
}


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
    """Write the body to `path` and return it. Raises Corrupt when its SHA-256 is not `sha256`."""
    total, received, digest = int(answer.headers.get("Content-Length", 0)), 0, hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
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
            file.close()  # Windows does not rename an open file
            os.replace(file.name, path)
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise
    return path
