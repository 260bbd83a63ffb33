"""Processes: children that are started, watched, restarted and stopped together."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
HEALTHY_SECONDS = 60.0  # a child that ran so long starts again without a pause
LONGEST_LOG_BYTES = 20 * 2**20
PR_SET_PDEATHSIG = 1
TAIL_LINES = 15


class Child:
    """A command that is to run for as long as we do; its output goes to a log of its own."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name, self.log, self.deaths = name, log, 0
        self._command, self._environment = list(command), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._not_before = 0.0

    def start(self) -> None:
        """Start it in a session of its own: Ctrl-C is ours to hear, and its whole family can be killed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LONGEST_LOG_BYTES:
            os.replace(self.log, self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        self._started = time.monotonic()

    @property
    def running(self) -> bool:
        if self._process is None or self._process.returncode is not None:
            return False
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is None
        # Left unreaped until `kill`: so long, no other process can get its id, and its group may be killed.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def revive(self) -> None:
        """Start it again when it has died and its pause is over; each early death doubles the pause."""
        if self._process is None or self.running:
            return
        now = time.monotonic()
        if not self._not_before:
            self.kill()  # whatever it left behind
            self.deaths = 1 if now - self._started > HEALTHY_SECONDS else self.deaths + 1
            self._not_before = now + min(FIRST_PAUSE_SECONDS * 2 ** (self.deaths - 1), LONGEST_PAUSE_SECONDS)
            self.note(f"ended with {self._process.returncode}; starts again in {self._not_before - now:.1f} s")
        if now >= self._not_before:
            self._not_before = 0.0
            self.start()

    def ask_to_stop(self) -> None:
        if self._process is not None and self.running:
            self._process.terminate()

    def kill(self) -> None:
        """Kill it and whatever is left of its session."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def note(self, sentence: str) -> None:
        """Write a line of our own into its log."""
        with self.log.open("a") as log:
            log.write(f"[twoviews up] {self.name} {sentence}\n")

    def tail(self) -> str:
        """Return the last lines that it wrote."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-TAIL_LINES:])


def stop(children: Iterable[Child], grace_seconds: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """Ask the children to end, all at once; kill what is left after the grace time, or when `hurry` says so."""
    group = list(children)
    for child in group:
        child.ask_to_stop()
    deadline = time.monotonic() + grace_seconds
    while any(child.running for child in group) and time.monotonic() < deadline and not hurry():
        time.sleep(0.05)
    for child in group:
        child.kill()


def _die_with(parent: int) -> Callable[[], None] | None:
    """Return what the child does before it becomes its command: arrange to be killed when `parent` dies."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return arrange
