"""The watchdog: finds child processes that run but do not answer."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

CHECK_SECONDS = 1.0
_MAX_COUNTED_SECONDS = 5.0  # of one check: time in which this process was suspended itself does not count


class Watchdog:
    """Calls a check for each child again and again, in a thread.

    A child hangs if it has not answered for `limit_seconds`, or after its restart for `start_seconds` more.
    """

    def __init__(self, checks: Mapping[str, Callable[[], bool]], limit_seconds: float, start_seconds: float) -> None:
        """checks: by the child's name; each returns whether the child answers, within a few seconds."""
        self._checks = checks
        self._limit_seconds, self._start_seconds = limit_seconds, start_seconds
        self._silent = dict.fromkeys(checks, 0.0)  # seconds without an answer
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to check the children, which have all answered."""
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def is_hung(self, name: str) -> bool:
        return self._silent.get(name, 0.0) > self._limit_seconds

    def expect_start(self, name: str) -> None:
        """Wait longer for the first answer of a child that was started again."""
        with self._lock:
            self._silent[name] = -self._start_seconds

    def _run(self) -> None:
        checked = dict.fromkeys(self._checks, time.monotonic())
        while not self._stop.wait(CHECK_SECONDS):
            for name, check in self._checks.items():
                answers, now = check(), time.monotonic()
                with self._lock:
                    silent = self._silent[name] + min(now - checked[name], _MAX_COUNTED_SECONDS)
                    self._silent[name] = 0.0 if answers else silent
                checked[name] = now


class BeatFile:
    """A file that a child writes again and again; a check returns whether it has changed since the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = ""

    def has_changed(self) -> bool:
        try:
            beat = self._path.read_text()
        except OSError:
            return False
        changed, self._seen = beat != self._seen, beat
        return changed
