"""Child processes: start, restart and stop them together."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from twoviews.local import log_files
from twoviews.local.guard import Guard

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 30.0
HEALTHY_SECONDS = 60.0  # a child that ran so long restarts after the first pause
PR_SET_PDEATHSIG = 1
TAIL_LINES = 15
_guard = Guard()
PYTHON = (sys.executable, "-P", "-m")  # -P: modules are not imported from the working directory


class Child:
    """A command that is restarted when it ends; its output goes to its own log."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name, self.log, self.deaths = name, log, 0
        self._command, self._environment = list(command), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._not_before = 0.0

    def start(self) -> None:
        """Start it in its own session: it gets no Ctrl-C, and its process group can be killed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_make_preexec(os.getpid()),
            )
        if sys.platform != "linux":
            _guard.add(self._process.pid)
        self._started = time.monotonic()

    @property
    def is_running(self) -> bool:
        if self._process is None or self._process.returncode is not None:
            return False
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is None
        # Not reaped before `kill`: until then no other process can get its id, and its group may be killed.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def restart_if_ended(self) -> None:
        """Restart it when it has ended and its pause is over; each early end doubles the pause."""
        if self._process is None or self.is_running:
            return
        now = time.monotonic()
        if not self._not_before:
            self.kill()  # its children
            self.deaths = 1 if now - self._started > HEALTHY_SECONDS else self.deaths + 1
            self._not_before = now + min(FIRST_PAUSE_SECONDS * 2 ** (self.deaths - 1), MAX_PAUSE_SECONDS)
            self.log_line(f"ended with {self._process.returncode}; starts again in {self._not_before - now:.1f} s")
        if now >= self._not_before:
            self._not_before = 0.0
            self.start()

    def terminate(self) -> None:
        if self._process is not None and self.is_running:
            self._process.terminate()

    def kill(self) -> None:
        """Kill its process group and reap it."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        _guard.discard(self._process.pid)

    def log_line(self, sentence: str) -> None:
        """Write a line of the parent to its log, in the format of its own lines."""
        as_json = "TWOVIEWS_LOG_FILE" in self._environment and self._environment.get("TWOVIEWS_LOG_FORMAT") != "text"
        with self.log.open("a") as log:
            log.write(log_files.make_line(f"{self.name} {sentence}", as_json=as_json))

    def read_tail(self) -> str:
        """Return the last lines of its log as text."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(map(log_files.to_text, lines[-TAIL_LINES:]))


def stop(children: Iterable[Child], grace_seconds: float, is_urgent: Callable[[], bool] = lambda: False) -> None:
    """Terminate all children; kill those that still run after the grace time, or as soon as `is_urgent()`."""
    group = list(children)
    for child in group:
        child.terminate()
    deadline = time.monotonic() + grace_seconds
    while any(child.is_running for child in group) and time.monotonic() < deadline and not is_urgent():
        time.sleep(0.05)
    for child in group:
        child.kill()


def _make_preexec(parent: int) -> Callable[[], None] | None:
    """Return a function for the child to call before exec: it is killed when `parent` ends. Linux; else see Guard."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def set_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)

    return set_death_signal
