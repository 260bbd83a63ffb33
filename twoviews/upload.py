"""An upload: a file, or a folder packed on the way, read from disk piece by piece."""

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[int, int], None]  # bytes sent, bytes in all


class Watched(io.BufferedReader):
    """An open file that says how far it has been read."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        super().__init__(io.FileIO(path), buffer_size=2**20)
        self._size, self._progress = path.stat().st_size, progress

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self._progress is not None:
            self._progress(self.tell(), self._size)
        return data


@contextmanager
def archive(path: Path) -> Iterator[Path]:
    """Give the file itself, or a temporary tar of the folder that is gone afterwards. Raises FileNotFoundError."""
    if path.is_file():
        yield path
    elif path.is_dir():
        with tempfile.TemporaryDirectory(prefix="twoviews-") as folder:
            packed = Path(folder) / f"{path.resolve().name}.tar"
            _pack(path, packed)
            yield packed
    else:
        raise FileNotFoundError(f"There is no file or folder {path}.")


def _pack(folder: Path, target: Path) -> None:
    """Write the folder's files, sorted and without hidden ones, so that equal folders make equal archives."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        for file in sorted(folder.rglob("*")):
            place = file.relative_to(folder)
            if file.is_file() and not any(part.startswith(".") for part in place.parts):
                tar.add(file, place.as_posix(), filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime, entry.mode = 0, 0o644
    return entry
