"""The command `python -m service verify`: progress on stderr, what is damaged on stdout."""

import sys
import time
from contextlib import suppress
from typing import TextIO

from service.db.session import Database
from service.monitoring import last_runs
from service.storage import Storage
from service.verify.walk import Progress, Walk

_REPORT_SECONDS = 2.0


def run(database: Database, storage: Storage, *, restart: bool, recording: bool = False) -> int:
    """Verify the storage; return 0 when every file is sound and 1 when one is not."""
    walk = Walk(database, storage, restart=restart, recording=recording)
    if walk.is_resumed:
        _write(sys.stderr, f"Going on after {walk.state.items:,} checked items; --restart checks them again.")
    reported = time.monotonic()
    for progress in walk:
        if time.monotonic() - reported >= _REPORT_SECONDS:
            reported = time.monotonic()
            _write(sys.stderr, _format(progress))
    state = walk.state
    with suppress(OSError):  # the storage may be read-only
        last_runs.record(storage.root, "verify", len(state.damaged))
    for kind, path, name, outcome in state.damaged:
        _write(sys.stdout, f"{outcome}\t{kind}\t{path}/{name}".rstrip("/"))
    _write(sys.stderr, _format(Progress(state.items, state.items, state.bytes_read, len(state.damaged))))
    if recording:
        _write(sys.stderr, f"The SHA-256 of the files of {walk.recorded:,} models was recorded.")
    if state.unchecked:
        _write(sys.stderr, f"{state.unchecked:,} files of earlier versions have no recorded SHA-256: not checked.")
    return 1 if state.damaged else 0


def _format(progress: Progress) -> str:
    read = f"{progress.bytes_read / 2**30:.1f} GiB read"
    return f"{progress.items:,} of {progress.total:,} items, {read}, {progress.damaged:,} files damaged or missing"


def _write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()
