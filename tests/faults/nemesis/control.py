"""A control page: shared memory through which a test makes a running process's writes fail, or shifts its clock.

`install` replaces `open`, `os.mkdir`, `os.fsync` and `time.time` of a process whose environment names a page. Only
writes below the data folder fail; `time.monotonic` and the database's clock are not shifted.
"""

import builtins
import io
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Literal

PAGE, DATA = "TWOVIEWS_TEST_CONTROL_PAGE", "TWOVIEWS_DATA_DIR"
Role = Literal["worker", "trainer"]
_SIZE = 64
_OFFSET = 0  # float64: seconds that the clock is shifted by
_FAULTS = {"worker": 8, "trainer": 24}  # int32 each: errno, writes still to fail, writes that have failed, clock reads
_ERRNO, _LEFT, _FAILED, _READS = range(4)


class ControlPage:
    """The page of one worker and its trainers."""

    def __init__(self, path: Path) -> None:
        """Open the page, or create it."""
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    @property
    def clock_offset_seconds(self) -> float:
        return float(struct.unpack_from("d", self._memory, _OFFSET)[0])

    @clock_offset_seconds.setter
    def clock_offset_seconds(self, seconds: float) -> None:
        struct.pack_into("d", self._memory, _OFFSET, seconds)

    def fail_writes(self, role: Role, errno: int, count: int) -> None:
        """Let the next `count` writes of that process fail; 0 ends it."""
        self._set(role, _ERRNO, errno)
        self._set(role, _LEFT, count)

    def failures(self, role: Role) -> int:
        """Return the number of writes that have failed."""
        return self._get(role, _FAILED)

    def shifted_reads(self, role: Role) -> int:
        """Return how often that process has read its clock while it was shifted."""
        return self._get(role, _READS)

    def check_write(self, role: Role) -> None:
        """Raise the OSError that is due for a write of that process."""
        if (left := self._get(role, _LEFT)) > 0:
            self._set(role, _LEFT, left - 1)
            self._set(role, _FAILED, self._get(role, _FAILED) + 1)
            number = self._get(role, _ERRNO)
            raise OSError(number, os.strerror(number))

    def shift(self, role: Role, seconds: float) -> float:
        """Return the time of the shifted clock."""
        if offset := self.clock_offset_seconds:
            self._set(role, _READS, self._get(role, _READS) + 1)
        return seconds + offset

    def _get(self, role: Role, field: int) -> int:
        return int(struct.unpack_from("i", self._memory, _FAULTS[role] + 4 * field)[0])

    def _set(self, role: Role, field: int, value: int) -> None:
        struct.pack_into("i", self._memory, _FAULTS[role] + 4 * field, value)


def install(role: Role) -> None:
    """Connect this process to the page of its environment, if there is one."""
    if PAGE not in os.environ:
        return
    page, folder = ControlPage(Path(os.environ[PAGE])), os.environ[DATA] + os.sep
    _replace_files(page, role, folder)
    read_clock = time.time
    time.time = lambda: page.shift(role, read_clock())


def _replace_files(page: ControlPage, role: Role, folder: str) -> None:
    plain_open, make_folder, sync = io.open, os.mkdir, os.fsync

    class File(io.FileIO):
        def write(self, data, /):
            page.check_write(role)
            return super().write(data)

    def open_file(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        is_ours = isinstance(file, str | os.PathLike) and os.fspath(file).startswith(folder)
        if not is_ours or "r" in mode or "+" in mode.replace("w+", "w"):
            return plain_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def mkdir(path, *arguments, **options):
        if str(path).startswith(folder) and not os.path.isdir(path):
            page.check_write(role)
        make_folder(path, *arguments, **options)

    def fsync(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(folder):
            page.check_write(role)
        sync(descriptor)

    io.open = builtins.open = open_file
    os.mkdir, os.fsync = mkdir, fsync
