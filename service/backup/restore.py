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
from urllib.parse import quote

from sqlalchemy import make_url

from service import leases, workers
from service.backup import copying, manifest, tables
from service.backup.create import Report
from service.backup.manifest import Manifest
from service.db import migrate
from service.db.session import Database
from service.errors import BackupUnusable, Conflict
from ssl_core.files import sync

MARK = "restore.partial"  # in a data folder that is being restored
_IGNORED = (MARK, "lost+found")


def restore(backup: Path, data: Path, database_url: str, report: Report, *, keep_damaged: bool = False) -> Manifest:
    """Restore a backup; running jobs are queued again, from their checkpoints. Returns its manifest.

    keep_damaged: restore although files of the backup are damaged or missing; they are then added to
    `Manifest.damaged`. Raises BackupUnusable, Conflict, OSError and SQLAlchemy's errors.
    """
    wanted = manifest.load(backup)
    _check_revision(wanted)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _marked(data, (backup / manifest.FILE).read_bytes()[-100:]) as is_new:
        if is_new and [name for name in os.listdir(data) if name not in _IGNORED]:
            (data / MARK).unlink()
            raise Conflict(f"{data} is not empty. Restore into an empty folder.")
        target = _empty_database(database_url)
        try:
            damaged = _copy_files(backup, data, wanted, report)
            if damaged and not keep_damaged:
                listed = ", ".join(damaged[:10])
                raise BackupUnusable(
                    f"{len(damaged):,} files of the backup are damaged or missing: {listed}. Restore another "
                    "backup, or restore what there is with --keep-damaged."
                )
            wanted.damaged += [["backup", path, "", "corrupt"] for path in damaged]
            work = data / ".restored.db"
            copying.copy(backup / manifest.DATABASE, work)
            _prepare(work, wanted)
            copying.sync_folders(data)
            _put_database(work, database_url, target)
        finally:
            if target is not None:
                target.close()
        (data / MARK).unlink()
        sync(data)
    return wanted


def _check_revision(wanted: Manifest) -> None:
    if not migrate.is_known(wanted.revision):
        raise BackupUnusable(
            f"The backup is of a newer version of Twoviews: this one does not know revision {wanted.revision}."
        )


@contextmanager
def _marked(data: Path, identity: bytes) -> Iterator[bool]:
    """Mark the folder as being restored, for this process only; yield whether no interrupted call of this backup did.

    Raises Conflict when another backup was being restored into it.
    """
    with (data / MARK).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"Another process restores a backup into {data}.") from error
        file.seek(0)
        found = file.read()
        if found and found != identity:
            raise Conflict(f"The restoration of another backup into {data} was interrupted. Empty the folder first.")
        file.write(b"" if found else identity)
        file.flush()
        os.fsync(file.fileno())
        yield not found


def _empty_database(url: str) -> Database | None:
    """Return the open database, or None for an SQLite file that is yet to be made. Raises Conflict when it has rows."""
    path = _sqlite_path(url)
    if path is not None and not path.exists():
        return None
    database = Database(url)
    with database.engine.connect() as connection:
        is_empty = tables.are_empty(connection)
    if not is_empty:
        database.close()
        where = make_url(url).render_as_string(hide_password=True)
        raise Conflict(f"The database {where} is not empty. Restore into an empty one.")
    if path is not None:
        database.close()
        return None
    return database


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


def _prepare(work: Path, wanted: Manifest) -> None:
    """Migrate the copy of the database, queue running jobs again, and forget the workers."""
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


def _put_database(work: Path, url: str, target: Database | None) -> None:
    """Make the database that of the service, in one step."""
    path = _sqlite_path(url)
    if path is None:
        assert target is not None
        migrate.upgrade(target)
        tables.load(work, target)
        work.unlink()
        return
    for name in (f"{path}-wal", f"{path}-shm"):  # of an empty database
        Path(name).unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent != work.parent:  # possibly on another file system
        path.unlink(missing_ok=True)
        copying.copy(work, path)
        work.unlink()
    else:
        work.replace(path)
    sync(path.parent)


def _sqlite_path(url: str) -> Path | None:
    parsed = make_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None
