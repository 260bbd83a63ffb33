"""Storage: where files are, and how one becomes real.

    tmp/<random>.upload              bodies being received
    uploads/<tenant>/<sha256>        received archives that still wait for ingestion
    datasets/<dataset>/a<attempt>/   packed datasets
    jobs/<job>/a<attempt>/           what an attempt at a job wrote

The database holds paths relative to the root, with `/`. Every name here is made by us; none is a user's.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Set
from pathlib import Path, PurePosixPath

_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


class Storage:
    """The data folder. Folders are made when a path is asked for that is about to be written."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def tmp_dir(self) -> Path:
        """Where bodies are received: on the same filesystem as everything else, so that a rename moves them."""
        return _made(self.root / "tmp")

    def new_upload(self) -> Path:
        """Return a fresh path in `tmp_dir`."""
        return self.tmp_dir / f"{secrets.token_hex(16)}.upload"

    def upload_path(self, tenant_id: str, sha256: str) -> Path:
        """Where a received archive waits for its ingestion."""
        path = self.root / upload_path(tenant_id, sha256)
        _made(path.parent)
        return path

    def dataset_dir(self, dataset_id: str, attempt: int) -> Path:
        """The folder of one attempt at packing; made by whoever writes it."""
        return self.root / dataset_path(dataset_id, attempt)

    def attempt_dir(self, job_id: str, attempt: int) -> Path:
        """The folder of one attempt at a job; made by whoever writes it."""
        return self.root / attempt_path(job_id, attempt)

    def absolute(self, path: str) -> Path:
        """Return where a path from the database is. Raises ValueError when it leads out of the root."""
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
            raise ValueError(f"not a path inside the storage: {path!r}")
        found = self.root.joinpath(*parts)
        if not found.resolve().is_relative_to(self.root.resolve()):
            raise ValueError(f"not a path inside the storage: {path!r}")
        return found

    def relative(self, path: Path) -> str:
        """Return the path as the database keeps it. Raises ValueError when it is not inside the root."""
        return path.absolute().relative_to(self.root).as_posix()

    def sweep(self, live: Iterable[str], known: Set[str], leftover_seconds: float) -> list[str]:
        """Remove what nothing points at and nobody has touched for `leftover_seconds`; return what was removed.

        `live` are the relative paths of files and folders to keep (`service.garbage.live_paths`), with all that is
        in them and all that they are in. Only what is in a `known` folder is ever removed, or a body half received.
        """
        keep = frozenset(live)
        above = frozenset(str(parent) for path in keep for parent in PurePosixPath(path).parents)
        before = time.time() - leftover_seconds
        removed: list[str] = []
        for candidate in self._candidates():
            path = self.relative(candidate)
            around = {path, *map(str, PurePosixPath(path).parents)}
            ours = candidate.parent == self.tmp_dir or self.relative(candidate.parent) in known
            if ours and keep.isdisjoint(around) and path not in above and _last_touched(candidate) < before:
                _remove(candidate)
                removed.append(path)
        self._drop_empty_folders(before)
        return removed

    def _candidates(self) -> Iterator[Path]:
        """Yield everything that may be a leftover: bodies, archives, and the folders of attempts."""
        yield from self.root.glob("tmp/*")
        yield from self.root.glob("uploads/*/*")
        yield from self.root.glob("datasets/*/*")
        yield from self.root.glob("jobs/*/*")

    def _drop_empty_folders(self, before: float) -> None:
        """Drop folders of datasets and jobs that have been empty for long; a tenant's stays, for its next upload."""
        for pattern in ("datasets/*", "jobs/*"):
            for folder in self.root.glob(pattern):
                try:
                    if folder.stat().st_mtime < before:
                        folder.rmdir()
                except OSError:
                    continue  # not empty, or gone already


def dataset_path(dataset_id: str, attempt: int) -> str:
    """Return where an attempt at packing leaves the dataset, as the database keeps it."""
    return f"{dataset_folder(dataset_id)}/a{attempt:d}"


def attempt_path(job_id: str, attempt: int) -> str:
    """Return the folder of an attempt at a job, as the database keeps it."""
    return f"{job_folder(job_id)}/a{attempt:d}"


def upload_path(tenant_id: str, sha256: str) -> str:
    """Return where a received archive waits, as the database keeps it."""
    return f"{upload_folder(tenant_id)}/{_name(sha256)}"


def dataset_folder(dataset_id: str) -> str:
    """Return the folder of all attempts at packing a dataset."""
    return f"datasets/{_name(dataset_id)}"


def job_folder(job_id: str) -> str:
    """Return the folder of all attempts at a job."""
    return f"jobs/{_name(job_id)}"


def upload_folder(tenant_id: str) -> str:
    """Return the folder of all archives that wait for a tenant."""
    return f"uploads/{_name(tenant_id)}"


def make_durable(tmp: Path, final: Path) -> None:
    """Make `tmp` real under the name `final`, on disk for good: fsync, rename, fsync of the folder."""
    with tmp.open("rb") as file:
        os.fsync(file.fileno())
    tmp.replace(final)
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name of ours: {name!r}")
    return name


def _last_touched(path: Path) -> float:
    """Return when anything in `path` was last written."""
    try:
        newest = path.lstat().st_mtime
        for folder, _, files in os.walk(path):
            newest = max(newest, *(os.lstat(os.path.join(folder, name)).st_mtime for name in (".", *files)))
        return newest
    except FileNotFoundError:  # somebody else was quicker
        return time.time()


def _remove(path: Path) -> None:
    """Remove a file or a folder; a folder is renamed first, so that none is ever seen half removed."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    doomed = path.with_name(f"removed-{secrets.token_hex(8)}")
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)
