"""A trainer's lines in the worker's log: its Log events, and what it writes to stderr, with a traceback as one record.

A trainer may be any program, so the lines of an attempt are limited in length and number.
"""

import logging

from service.logs.formats import TRACEBACK
from ssl_core.events import Log
from worker.trainer.process import LineSplitter

MAX_LINES = 2_000  # of an attempt
MAX_LINE_BYTES = 4 * 2**10
MAX_TRACEBACK_LINES = 500
_BEGIN = "Traceback (most recent call last):"
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_log = logging.getLogger("trainer")


class TrainerLog:
    """Writes to the logger `trainer`; the ids of the attempt are those of the log context."""

    def __init__(self) -> None:
        self._lines = LineSplitter(MAX_LINE_BYTES)
        self._traceback: list[str] = []
        self._count = 0

    def add_event(self, event: Log) -> None:
        """Log the event, whose fields may be of any type."""
        self._write(_LEVELS.get(str(event.level), logging.INFO), str(event.message), {"code": str(event.code)})

    def add_stderr(self, chunk: bytes) -> None:
        """Log the lines that the chunk completes."""
        for line in self._lines.feed(chunk):
            self._add_line(line.decode("utf-8", "replace").rstrip())

    def close(self) -> None:
        """Log the last line, and how many lines were dropped."""
        for line in self._lines.flush():
            self._add_line(line.decode("utf-8", "replace").rstrip())
        self._end_traceback("")
        if self._count > MAX_LINES:
            _log.warning("%d more lines of the trainer are not logged", self._count - MAX_LINES)

    def _add_line(self, line: str) -> None:
        if line == _BEGIN:
            self._end_traceback("")
            self._traceback = [line]
        elif not self._traceback:
            self._write(logging.INFO, line, {})
        elif line.startswith(" ") and len(self._traceback) < MAX_TRACEBACK_LINES:
            self._traceback.append(line)
        else:
            self._end_traceback(line)

    def _end_traceback(self, last: str) -> None:
        """Log the traceback that ends with the line `last`, which names the exception."""
        if self._traceback:
            text = "\n".join([*self._traceback, last]).rstrip()
            self._traceback = []
            self._write(logging.ERROR, last or "A traceback without an exception", {TRACEBACK: text})

    def _write(self, level: int, message: str, fields: dict[str, str]) -> None:
        self._count += 1
        if self._count <= MAX_LINES:
            _log.log(level, "%s", message[:MAX_LINE_BYTES], extra=fields)
