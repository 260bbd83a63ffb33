"""Restoration of a backup into an empty data folder and an empty database of either kind.

The files come first, each compared with its SHA-256, then the database in one step. Until then the folder is marked:
the service refuses to start on it, and the next call goes on with what has been copied.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from sqlalchemy import make_url

from service import leases, workers
from service.backup import copying, manifest, tables
from service.backup.create import Report
from service.backup.manifest import Manifest
from service.db import migrate, revisions
from service.db.session import Database
from service.errors import BackupUnusable, Conflict
from ssl_core.files import sync

MARK = "restore.partial"  # in a data folder that is being restored
_IGNORED = (MARK, "lost+found")
_ALL_FILES = b"\n"  # at the end of a mark


def restore(backup: Path, data: Path, database_url: str, report: Report, *, keep_damaged: bool = False) -> Manifest:
    """Restore a backup; running jobs are queued again, from their checkpoints. Returns its manifest.

    keep_damaged: restore although files of the backup are damaged or missing; they are then added to
    `Manifest.damaged`. Raises BackupUnusable, Conflict, OSError and SQLAlchemy's errors.
    """
    wanted = manifest.load(backup)
    _check_revision(wanted)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _marked(data, (backup / manifest.FILE).read_bytes()[-100:]) as mark:
        if mark.is_new and [name for name in os.listdir(data) if name not in _IGNORED]:
            (data / MARK).unlink()
            raise Conflict(f"{data} is not empty. Restore into an empty folder.")
        is_placed = not _is_empty(database_url)
        if is_placed and not mark.has_all_files:
            where = make_url(database_url).render_as_string(hide_password=True)
            raise Conflict(f"The database {where} is not empty. Restore into an empty one.")
        copying.remove_temporary(data)
        damaged = _copy_files(backup, data, wanted, report)
        if damaged and not keep_damaged:
            listed = ", ".join(damaged[:10])
            raise BackupUnusable(
                f"{len(damaged):,} files of the backup are damaged or missing: {listed}. Restore another "
                "backup, or restore what there is with --keep-damaged."
            )
        wanted.damaged += [["backup", path, "", "corrupt"] for path in damaged]
        work = data / ".restored.db"
        if not is_placed:
            _copy_database(backup, work)
            copying.sync_folders(data)
            mark.add_all_files()
            _put_database(work, database_url)
        work.unlink(missing_ok=True)
        (data / MARK).unlink()
        sync(data)
    return wanted


class _Mark:
    """The mark of a folder that is being restored. `has_all_files`: only the database may be missing."""

    def __init__(self, file: BinaryIO, identity: bytes) -> None:
        """Raises Conflict when another backup was being restored."""
        file.seek(0)
        found = file.read()
        if found not in (b"", identity, identity + _ALL_FILES):
            raise Conflict(
                f"The restoration of another backup into {Path(file.name).parent} was interrupted. "
                "Empty the folder first."
            )
        self._file = file
        self.is_new = not found
        self.has_all_files = found.endswith(_ALL_FILES)
        self._append(b"" if found else identity)

    def add_all_files(self) -> None:
        """Note, durably, that from now on rows in the database are those of the backup."""
        if not self.has_all_files:
            self._append(_ALL_FILES)

    def _append(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())


def _check_revision(wanted: Manifest) -> None:
    if wanted.revision not in revisions.list_known():
        raise BackupUnusable(
            f"The backup is of a newer version of Twoviews: this one does not know revision {wanted.revision}."
        )


@contextmanager
def _marked(data: Path, identity: bytes) -> Iterator[_Mark]:
    """Mark the folder as being restored, for this process only. Raises Conflict."""
    with (data / MARK).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"Another process restores a backup into {data}.") from error
        yield _Mark(file, identity)


def _is_empty(url: str) -> bool:
    """Whether the database has no row, or is an SQLite file that is yet to be made."""
    path = _sqlite_path(url)
    if path is not None and not path.exists():
        return True
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            return tables.are_empty(connection)
    finally:
        database.close()


def _copy_files(backup: Path, data: Path, wanted: Manifest, report: Report) -> list[str]:
    """Copy all files but the database; return the paths of those without their SHA-256."""
    damaged = []
    for number, (path, entry) in enumerate(wanted.files.items()):
        report(number, len(wanted.files))
        if path == manifest.DATABASE:
            if _is_damaged(backup / path, entry.sha256):
                raise BackupUnusable(f"{backup / path} is damaged or missing: it does not have its SHA-256.")
            continue
        target = data / path.removeprefix(f"{manifest.DATA}/")
        if not target.resolve().is_relative_to(data.resolve()):
            raise BackupUnusable(f"The manifest names a path outside the backup: {path!r}.")
        if not _copy_sound(backup / path, target, entry.sha256):
            damaged.append(path)
        if path == manifest.CREDENTIALS and target.exists():
            target.chmod(0o600)
    return damaged


def _copy_sound(source: Path, target: Path, sha256: str) -> bool:
    """Copy a file and return whether it has its SHA-256; a copy of an interrupted call that has not is made anew."""
    with suppress(FileNotFoundError):
        if copying.copy(source, target).sha256 == sha256:
            return True
        target.unlink()
        return copying.copy(source, target).sha256 == sha256
    return False


def _is_damaged(path: Path, sha256: str) -> bool:
    try:
        return copying.hash_file(path) != sha256
    except FileNotFoundError:
        return True


def _copy_database(backup: Path, work: Path) -> None:
    """Copy the database, migrate the copy, queue running jobs again, and forget the workers."""
    for name in (f"{work}-wal", f"{work}-shm"):  # of the copy that an interrupted call has changed
        Path(name).unlink(missing_ok=True)
    copying.copy(backup / manifest.DATABASE, work)
    database = Database(f"sqlite:///{quote(str(work))}")
    try:
        migrate.upgrade(database)
        with database.writing() as session:
            leases.requeue_held(session, "Restored from a backup.")
            workers.delete_all(session)
    finally:
        database.close()
    with closing(sqlite3.connect(work)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # one file, which can be renamed
    sync(work)


def _put_database(work: Path, url: str) -> None:
    """Make the database that of the service, in one step."""
    path = _sqlite_path(url)
    if path is None:
        target = Database(url)
        try:
            migrate.upgrade(target)
            tables.load(work, target)
        finally:
            target.close()
        return
    for name in (f"{path}-wal", f"{path}-shm"):  # of an empty database
        Path(name).unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent != work.parent:  # possibly on another file system
        path.unlink(missing_ok=True)
        copying.copy(work, path)
    else:
        work.replace(path)
    sync(path.parent)


def _sqlite_path(url: str) -> Path | None:
    parsed = make_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None
