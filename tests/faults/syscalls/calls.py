"""System calls on files of one folder: what a stopped thread is about to do, by name and path."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.faults.syscalls.numbers import Architecture
from tests.faults.syscalls.ptrace import Registers

_AT_FDCWD = -100
_ON_DESCRIPTOR = {
    "read": 0, "pread64": 0, "readv": 0, "write": 0, "pwrite64": 0, "writev": 0, "pwritev": 0, "pwritev2": 0,
    "fsync": 0, "fdatasync": 0, "ftruncate": 0, "fallocate": 0, "close": 0, "sync_file_range": 0, "syncfs": 0,
    "copy_file_range": 2, "sendfile": 0,
}  # fmt: skip
# The positions of a folder's descriptor (None: the current folder) and of the path, for each path of a call.
_ON_PATHS: dict[str, tuple[tuple[int | None, int], ...]] = {
    "open": ((None, 0),), "creat": ((None, 0),), "mkdir": ((None, 0),), "rmdir": ((None, 0),),
    "unlink": ((None, 0),), "truncate": ((None, 0),), "rename": ((None, 0), (None, 1)),
    "link": ((None, 0), (None, 1)), "symlink": ((None, 1),), "openat": ((0, 1),), "openat2": ((0, 1),),
    "mkdirat": ((0, 1),), "unlinkat": ((0, 1),), "renameat": ((0, 1), (2, 3)), "renameat2": ((0, 1), (2, 3)),
    "linkat": ((0, 1), (2, 3)), "symlinkat": ((1, 2),),
}  # fmt: skip
TRACED = frozenset(_ON_DESCRIPTOR) | frozenset(_ON_PATHS)
READS = ("read", "pread64", "readv")
WRITES = ("write", "pwrite64")  # of which a part may be done
SYNCS = ("fsync", "fdatasync")
DELETED = " (deleted)"


@dataclass(slots=True)
class Call:
    """One call. Paths are relative to the folder; of an unnamed file, `path` ends in ` (deleted)`."""

    name: str
    path: str
    to: str = ""  # the new path of a rename or a link
    flags: int = 0  # of an opening
    size: int = 0  # bytes of a write
    result: int = 0  # set when the call has been executed under observation

    @property
    def changes(self) -> bool:
        """Whether it is an opening for writing, or another call that changes files."""
        if self.name in ("open", "openat"):
            return bool(self.flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return self.name not in READS

    @property
    def is_turn(self) -> bool:
        """Whether it makes a file visible or durable, or removes one."""
        return self.name in SYNCS or self.name.startswith(("rename", "link", "unlink", "rmdir"))

    def __str__(self) -> str:
        return f"{self.name} {self.path}{' -> ' + self.to if self.to else ''}"


class Reader:
    """Reads the calls of stopped threads on a folder."""

    def __init__(self, architecture: Architecture, folder: Path, ignored: tuple[str, ...] = ()) -> None:
        """ignored: ends of the names of files whose calls are left alone, such as those of a database."""
        self._names = {number: name for name, number in architecture.calls.items() if name in TRACED}
        self._root = f"{folder}/"
        self._folder, self._ignored = str(folder), ignored

    @property
    def numbers(self) -> list[int]:
        return [*self._names]

    def read(self, tid: int, registers: Registers) -> Call | None:
        """Return the call that a stopped thread is about to make, or None if it is on no file of the folder."""
        name = self._names[registers.number]
        if (position := _ON_DESCRIPTOR.get(name)) is not None:
            path = self._relative(_descriptor_path(tid, registers.argument(position)))
            return None if path is None else Call(name, path, size=registers.argument(2))
        paths = [self._read_path(tid, registers, *places) for places in _ON_PATHS[name]]
        found = [path for path in paths if path is not None]
        if not found:
            return None
        flags = registers.argument({"open": 1, "openat": 2}[name]) if name in ("open", "openat") else 0
        return Call(name, found[0], found[1] if len(found) > 1 else "", flags)

    def _read_path(self, tid: int, registers: Registers, folder: int | None, position: int) -> str | None:
        path = _read_string(tid, registers.argument(position))
        if not path.startswith("/"):
            at = _AT_FDCWD if folder is None else _int32(registers.argument(folder))
            base = os.readlink(f"/proc/{tid}/cwd") if at == _AT_FDCWD else _descriptor_path(tid, at)
            path = os.path.join(base, path)
        return self._relative(os.path.normpath(path))

    def _relative(self, path: str) -> str | None:
        if path == self._folder:
            return "."
        if not path.startswith(self._root) or path.removesuffix(DELETED).endswith(self._ignored or ("\0",)):
            return None
        return path.removeprefix(self._root)


def _descriptor_path(tid: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{tid}/fd/{_int32(descriptor)}")
    except OSError:  # not an open one
        return ""


def _read_string(tid: int, address: int) -> str:
    """Return a path, which ends in a zero byte, from the memory of a thread."""
    found = b""
    with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
        while b"\0" not in found and len(found) < 4096:
            memory.seek(address + len(found))
            found += memory.read(256 - (address + len(found)) % 256)
    return os.fsdecode(found.partition(b"\0")[0])


def _int32(value: int) -> int:
    return (value & 0xFFFFFFFF) - (1 << 32 if value & 0x80000000 else 0)
