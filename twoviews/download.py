"""A download: a body that becomes a file in one step, or not at all."""

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


def place(target: Path, model_id: str, file: str) -> Path:
    """Return where the file goes: `target` itself, or a name of our own in the folder `target`."""
    return target / f"{model_id}.{FILE_NAMES.get(file, file)}" if target.is_dir() else target


def file_name(name: str) -> str:
    """Return the name of an artifact when it can be that of a file in a folder. Raises ValueError."""
    if not name or name == ".." or Path(name).name != name or "\\" in name or not name.isprintable():
        raise ValueError(f"not a file's name: {name!r}")
    return name


def save(answer: httpx.Response, path: Path, sha256: str | None, progress: Progress | None) -> Path:
    """Write the body to `path` and return it. Raises Corrupt when its SHA-256 is not the one that was promised."""
    total, got, digest = int(answer.headers.get("Content-Length", 0)), 0, hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            for piece in answer.iter_bytes(2**20):
                file.write(piece)
                digest.update(piece)
                got += len(piece)
                if progress is not None:
                    progress(got, total)
            if sha256 is not None and digest.hexdigest() != sha256:
                raise Corrupt(f"{path.name} arrived with SHA-256 {digest.hexdigest()}; {sha256} was promised.")
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    return path
