"""The order of fsync: what a power failure could leave, read off a recorded trace.

kill -9 does not lose what is in the page cache, so killing a writer shows nothing of this. The rules, for the calls of
one write that has succeeded:

1. A file is synced after its last write before it is renamed or linked into place.
2. When a file that marks its folder as complete gets its name, or an existing file is removed, everything that was
   written to the same folder before is durable: the bytes of its files, and the folder after their names were made,
   renamed or removed. So a folder never looks complete before it is.
3. In the end every file is synced, and so is each folder in which a name was made, a folder's own included.

Temporary names, which no reader looks at, may be removed and need not be durable.
"""

import os
from collections.abc import Iterable
from pathlib import PurePosixPath

from tests.faults.syscalls.calls import DELETED, SYNCS, Call
from tests.faults.syscalls.writer import TEMPORARY

_RENAMES = ("rename", "renameat", "renameat2", "link", "linkat")
_MARKERS = ("dataset.json", "model.json")
_REMOVALS = ("unlink", "unlinkat", "rmdir")


def find_faults(calls: Iterable[Call]) -> list[str]:
    """Return a sentence for each violation in a trace that has results."""
    folder = _Folder()
    for call in calls:
        if call.result >= 0:
            folder.apply(call)
    return folder.faults + folder.find_unsynced()


class _Folder:
    """What a power failure would lose of a data folder at one moment."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._written: set[str] = set()  # files with bytes that are not synced
        self._names: dict[str, str] = {}  # names that were made (or removed) since their folder was synced, and how

    def apply(self, call: Call) -> None:
        path = call.path
        if path.endswith(DELETED):  # it has no name
            return
        if call.name in ("open", "openat"):
            if call.flags & os.O_CREAT and call.flags & getattr(os, "O_TMPFILE", 0) != getattr(os, "O_TMPFILE", -1):
                self._make_name(path, "created")
        elif call.name in ("mkdir", "mkdirat"):
            self._make_name(path, "created")
        elif call.name in SYNCS:
            self._sync(path)
        elif call.name in _RENAMES:
            self._rename(call)
        elif call.name in _REMOVALS:
            self._remove(path)
        elif call.name not in ("close", "read", "pread64", "readv"):
            self._written.add(path)

    def find_unsynced(self) -> list[str]:
        """Return what is not durable in the end."""
        lost = [f"In the end {path} is not synced." for path in sorted(self._written) if not TEMPORARY.search(path)]
        names = [(path, how) for path, how in self._names.items() if not TEMPORARY.search(path) and how != "removed"]
        return lost + [f"In the end {_parent(path)} is not synced after {path} was {how}." for path, how in names]

    def _make_name(self, path: str, how: str) -> None:
        self._names[path] = how

    def _sync(self, path: str) -> None:
        self._written.discard(path)
        for name in [name for name in self._names if _parent(name) == path]:
            del self._names[name]

    def _rename(self, call: Call) -> None:
        if call.path in self._written:
            self.faults.append(f"{call.path} is renamed to {call.to} before it is synced.")
        if call.to.endswith(_MARKERS):
            self._expect_durable(call.to, f"{call.to} gets its name", except_for=call.path)
        self._written.discard(call.path)
        if self._names.pop(call.path, None) is None:
            self._names[call.path] = "removed"
        self._make_name(call.to, "renamed")

    def _remove(self, path: str) -> None:
        if not TEMPORARY.search(path):
            self._expect_durable(path, f"{path} is removed", except_for=path)
            self._names[path] = "removed"
        else:
            self._names.pop(path, None)
        self._written.discard(path)

    def _expect_durable(self, path: str, event: str, except_for: str) -> None:
        """Rule 2, of what lies in the folder of `path`."""
        folder = _parent(path)
        for other in sorted(self._written):
            if _parent(other) == folder and other != except_for and not TEMPORARY.search(other):
                self.faults.append(f"{event} before {other} is synced.")
        for other, how in self._names.items():
            is_other = _parent(other) == folder and other not in (except_for, path) and not TEMPORARY.search(other)
            if is_other and not (how == "removed" and event.endswith(how)):  # several may be removed at once
                self.faults.append(f"{event} before the folder is synced after {other} was {how}.")


def _parent(path: str) -> str:
    return str(PurePosixPath(path).parent)
