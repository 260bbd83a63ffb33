"""The commands `python -m service backup` and `restore`: progress on stderr, what is damaged on stdout."""

import sys
import time
from pathlib import Path
from typing import TextIO

from service.backup import create, restore
from service.backup.manifest import Manifest
from service.db.session import Database
from service.errors import StorageAway
from service.monitoring import last_runs
from service.settings import Settings
from service.storage import Storage

_REPORT_SECONDS = 2.0


def run_backup(database: Database, storage: Storage, out: Path, since: Path | None) -> int:
    """Write a backup; return 0 when every file in it is sound and 1 when one is not. Raises Error."""
    out = out.absolute()
    try:
        written = create.create(database, storage, out, since, _Reporter("copied"))
        last_runs.record(storage.root, "backup", len(written.damaged))
    except OSError as error:
        raise _describe(error, f"{out} cannot be written") from error
    _write(sys.stderr, f"Backed up {_format(written)} to {out}.")
    return _list_damaged(written)


def run_restore(backup: Path, settings: Settings, *, keep_damaged: bool) -> int:
    """Restore a backup; return 0 when every file in it is sound and 1 when one is not. Raises Error."""
    data = settings.data_dir.absolute()
    try:
        restored = restore.restore(backup, data, settings.database, _Reporter("restored"), keep_damaged=keep_damaged)
    except OSError as error:
        raise _describe(error, f"{data} cannot be restored") from error
    _write(sys.stderr, f"Restored {_format(restored)} to {data}.")
    return _list_damaged(restored)


class _Reporter:
    """Writes the progress to stderr from time to time."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._reported = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._reported >= _REPORT_SECONDS:
            self._reported = time.monotonic()
            _write(sys.stderr, f"{done:,} of {total:,} {self._verb}")


def _list_damaged(written: Manifest) -> int:
    for kind, path, name, outcome in written.damaged:
        _write(sys.stdout, f"{outcome}\t{kind}\t{path}/{name}".rstrip("/"))
    return 1 if written.damaged else 0


def _describe(error: OSError, what: str) -> StorageAway:
    place = f" at {error.filename}" if error.filename else ""
    return StorageAway(f"{what}: {error.strerror or error}{place}.")


def _format(written: Manifest) -> str:
    return f"{len(written.files):,} files, {written.size_bytes / 2**30:.1f} GiB"


def _write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()
