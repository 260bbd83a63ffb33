"""Uploads: a file, or a folder packed as tar, read from disk in chunks."""

import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[int, int], None]  # bytes sent, bytes in total


class ProgressReader(io.BufferedReader):
    """A file that calls `progress(read, total)` with numbers of bytes at each read."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        super().__init__(io.FileIO(path), buffer_size=2**20)
        self._size, self._progress = path.stat().st_size, progress

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self._progress is not None:
            self._progress(self.tell(), self._size)
        return data


def require_file(path: Path) -> Path:
    """Return the path of a file. Raises FileNotFoundError and IsADirectoryError."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    return path


@contextmanager
def pack(path: Path) -> Iterator[Path]:
    """Yield the file, or a temporary tar of the folder. Raises FileNotFoundError."""
    if path.is_file():
        yield path
    elif path.is_dir():
        with tempfile.TemporaryDirectory(prefix="twoviews-") as folder:
            packed = Path(folder) / f"{path.resolve().name}.tar"
            _write_tar(path, packed)
            yield packed
    else:
        raise FileNotFoundError(f"There is no file or folder {path}.")


def _write_tar(folder: Path, target: Path) -> None:
    """Write the folder's files, sorted and without hidden ones, so that equal folders give equal archives."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        for file in find_files(folder):
            tar.add(file, file.relative_to(folder).as_posix(), filter=_strip_metadata)


def find_files(folder: Path) -> list[Path]:
    """Return the files of a folder at any depth, sorted and without hidden ones; linked folders are followed.

    A link to a folder that contains it is not. Raises FileNotFoundError for a link to nothing.
    """
    return sorted(_walk(folder, frozenset()), key=lambda file: file.relative_to(folder))


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, above | {identity})
        elif path.is_file():
            yield path
        elif path.is_symlink():
            raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which does not exist.")


def _strip_metadata(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime, entry.mode = 0, 0o644
    return entry
