"""Log output: each record is one write to stderr or to a file that is opened again once it has been renamed."""

import logging
import os
import sys
from pathlib import Path

_MODE = 0o600
_STDOUT, _STDERR = 1, 2


class StderrHandler(logging.Handler):
    """Writes each record with one system call, so that the lines of several processes are never mixed."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except Exception:  # noqa: BLE001 - as every handler of `logging` does
            self.handleError(record)

    def write(self, line: bytes) -> None:
        _write_all(_STDERR, line)


class FileHandler(StderrHandler):
    """Appends to a file that another program may rename at any time (logrotate, `twoviews up`).

    Before each line it opens the file again if its path no longer leads to it. A line that is written during the
    renaming is in the renamed file. What the process writes to stdout and stderr itself is appended to the file too.
    Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._open()

    def write(self, line: bytes) -> None:
        if _identify(self._path) != self._identity:
            try:
                self._open()
            except OSError as error:  # the file that was renamed takes the lines meanwhile
                _write_all(_STDERR, f"The log {self._path} cannot be opened: {error.strerror}\n".encode())
        super().write(line)

    def _open(self) -> None:
        """Let stdout and stderr be the file. Processes that were forked from this one do so for themselves."""
        sys.stdout.flush()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            status = os.fstat(descriptor)
            for standard in (_STDOUT, _STDERR):
                os.dup2(descriptor, standard)
        finally:
            os.close(descriptor)
        self._identity = (status.st_dev, status.st_ino)


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _write_all(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
