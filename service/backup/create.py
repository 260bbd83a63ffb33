"""Creation of a backup while the service runs.

With the keeper's sweep held off, a snapshot of the database is opened and every file that it names is pinned; then the
database is written, the sweep goes on, and the pinned files are copied, hashed and checked. All of it is written to a
folder of another name, which gets its own at the end: a killed backup leaves nothing that looks like one, and the next
call with the same name goes on with what it has copied.
"""

import fcntl
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from service.backup import copying, manifest
from service.backup.manifest import Manifest
from service.backup.pins import Pins
from service.backup.snapshot import Snapshot, open_snapshot
from service.db import revisions
from service.db.models import Job
from service.db.session import Database, clock
from service.db.statuses import HELD
from service.errors import Conflict
from service.storage import Storage
from service.verify.checks import Checked, check_item
from service.verify.inventory import Item, list_items
from ssl_core.files import sync

_TRIES = 6  # for a moment in which no trainer replaces a file
_PAUSE_SECONDS = 0.3

Report = Callable[[int, int], None]  # called with the items copied and their total


@dataclass
class _Contents:
    """What is to be copied, and the rows of running jobs whose file was replaced or removed."""

    items: list[Item] = field(default_factory=list)
    dropped: list[Item] = field(default_factory=list)
    created_at: float = 0.0
    kind: str = ""


def create(database: Database, storage: Storage, out: Path, since: Path | None, report: Report) -> Manifest:
    """Write a backup to the new folder `out` and return its manifest.

    since: an earlier backup; files that have not changed since are hard links to its files. Raises Conflict,
    BackupUnusable and OSError.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Conflict(f"{out} exists already.")
    if out.is_relative_to(storage.root):
        raise Conflict(f"{out} is inside the data folder {storage.root}.")
    earlier = manifest.load(since) if since is not None else None
    with _open_partial(out) as folder:
        pins = Pins(storage)
        try:
            contents = _take_snapshot(database, storage, pins, folder)
            written = Manifest(contents.created_at, revisions.newest(), contents.kind)
            copier = _Copier(folder, pins, written, since, earlier)
            copier.copy_service_files(storage.root)
            for number, item in enumerate(contents.items):
                report(number, len(contents.items))
                copier.copy_item(item)
        finally:
            pins.remove()
        copier.remove_others()
        manifest.save(folder, written)
        copying.sync_folders(folder)
        folder.rename(out)  # onto an empty folder too
        sync(out.parent)
    return written


@contextmanager
def _open_partial(out: Path) -> Iterator[Path]:
    """Create or reopen the folder in which the backup is written, for this process only. Raises Conflict, OSError."""
    folder = out.with_name(f".{out.name}.partial")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"Another process writes the backup {out}.") from error
        yield folder
    finally:
        os.close(descriptor)


def _take_snapshot(database: Database, storage: Storage, pins: Pins, folder: Path) -> _Contents:
    """Write the database to the folder, and pin the files that it names."""
    with storage.without_sweep():
        for left in reversed(range(_TRIES)):
            with open_snapshot(database) as snapshot:
                contents, complete = _pin(snapshot, pins)
                if complete or not left:
                    snapshot.write(folder / manifest.DATABASE)
                    break
            pins.remove()  # a later version may have the same path
            time.sleep(_PAUSE_SECONDS)
    _delete_rows(folder / manifest.DATABASE, contents.dropped)
    sync(folder / manifest.DATABASE)
    return contents


def _pin(snapshot: Snapshot, pins: Pins) -> tuple[_Contents, bool]:
    """Pin the files that the snapshot names; return whether no running job needs a file that has gone since."""
    with snapshot.reading() as session:
        items = list_items(session, running=True)
        held = set(session.scalars(select(Job.id).where(Job.status.in_(HELD))))
        contents = _Contents(created_at=clock(session), kind=snapshot.kind)
    running = [item for item in items if item.kind in ("artifact", "checkpoint") and item.path.split("/")[1] in held]
    for item in (*running, *items):
        pins.add(item)
    contents.dropped = [item for item in running if not pins.has(item)]
    contents.items = [item for item in items if item not in contents.dropped]
    return contents, not contents.dropped


def _delete_rows(path: Path, items: list[Item]) -> None:
    """Delete the rows of items that the backup has no file of: a resumed job writes them again."""
    with closing(sqlite3.connect(path)) as connection:
        for item in items:
            table = {"artifact": "artifacts", "checkpoint": "checkpoints"}[item.kind]
            connection.execute(f"DELETE FROM {table} WHERE path = ?", (item.path,))
        connection.commit()


class _Copier:
    """Copies pinned files to the folder of a backup and lists them in its manifest."""

    def __init__(
        self, folder: Path, pins: Pins, written: Manifest, since: Path | None, earlier: Manifest | None
    ) -> None:
        self._folder, self._pins, self._written = folder, pins, written
        self._since, self._earlier = since, earlier
        files = earlier.files if earlier is not None else {}
        self._earlier_counts = Counter(part for path in files for part in (path, os.path.dirname(path)))

    def copy_service_files(self, root: Path) -> None:
        """List the database, and copy the credentials of a service that `twoviews up` runs."""
        database = self._folder / manifest.DATABASE
        found = database.stat()
        self._written.files[manifest.DATABASE] = manifest.Entry(
            copying.hash_file(database), found.st_size, found.st_mtime_ns
        )
        if (root / manifest.CREDENTIALS).is_file():
            target = self._folder / manifest.CREDENTIALS
            self._written.files[manifest.CREDENTIALS] = copying.copy(root / manifest.CREDENTIALS, target)
            target.chmod(0o600)

    def copy_item(self, item: Item) -> None:
        """Copy the files of an item and check the copies, unless all of them are links to checked ones."""
        self._pins.keep()
        path, linked, copied = f"{manifest.DATA}/{item.path}", 0, 0
        for file in copying.list_files(self._pins.root / item.path):
            name = f"{manifest.DATA}/{file.relative_to(self._pins.root).as_posix()}"
            if self._link(file, name):
                linked += 1
            else:
                self._written.files[name] = copying.copy(file, self._folder / name)
                copied += 1
        if self._earlier is not None and linked and not copied and linked == self._earlier_counts[path]:
            self._written.damaged += [entry for entry in self._earlier.damaged if tuple(entry[:2]) == item.key]
            return
        for step in check_item(item, self._folder / manifest.DATA / item.path):
            if isinstance(step, Checked) and step.outcome not in ("sound", "unchecked"):
                self._written.damaged.append([*item.key, step.name, step.outcome])

    def remove_others(self) -> None:
        """Remove what an interrupted call has copied and the database no longer names."""
        for file in copying.list_files(self._folder):
            if file.relative_to(self._folder).as_posix() not in self._written.files:
                file.unlink()
        for path, _, _ in os.walk(self._folder / manifest.DATA, topdown=False):
            if not any(Path(path).iterdir()):
                shutil.rmtree(path)

    def _link(self, file: Path, path: str) -> bool:
        if self._since is None or self._earlier is None:
            return False
        entry = self._earlier.files.get(path)
        if not copying.link_unchanged(file, self._since / path, entry, self._folder / path):
            return False
        assert entry is not None
        self._written.files[path] = entry
        return True
