"""A trainer process: starts it, reads its lines, stops it, and kills it with all its children.

It runs in a session of its own, so that a signal to its group reaches its children and no other process. The kernel
kills it when its parent ends. That is set between fork and exec, not by the trainer, because a trainer may be any
program; it is safe here because a Celery child runs one thread.
"""

import contextlib
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from ssl_core.distributed import parent_death

MAX_LINE_BYTES = 4 * 2**20
_TAIL_BYTES = 8 * 2**10
_CHUNK_BYTES = 2**18
_MAX_FINAL_CHUNKS = 8
_SECRETS = frozenset({"TWOVIEWS_DATABASE_URL", "TWOVIEWS_BROKER_URL", "TWOVIEWS_ENCODER_TOKEN", "TWOVIEWS_KEY"})


class TrainerProcess:
    """A running trainer. Raises OSError when the command cannot be started.

    on_stderr: called with each piece of its stderr. takes_lines: whether `send` is to be used.
    """

    def __init__(
        self, command: Sequence[str | Path], on_stderr: Callable[[bytes], object] = len, *, takes_lines: bool = False
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if takes_lines else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=_drop_secrets(os.environ),
            preexec_fn=partial(parent_death.die_with_parent, os.getpid()),
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdout: IO[bytes] = self._process.stdout
        self._stderr: IO[bytes] = self._process.stderr
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ)
        self._lines = LineSplitter()
        self._tail = b""
        self._on_stderr = on_stderr
        self.stdout_closed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process itself has ended; its children may still run."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        # Not reaped before `kill_and_reap`: until then no other process can get its id, and its group may be killed.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def stderr_tail(self) -> str:
        """The last bytes of its stderr, decoded."""
        return self._tail.decode("utf-8", "replace").strip()

    def read(self, timeout_seconds: float, with_stdout: bool = True) -> list[bytes]:
        """Return the lines that arrive within the time; without `with_stdout` its stdout pipe is left to fill up."""
        self._select_stdout(with_stdout)
        lines: list[bytes] = []
        for key, _ in self._selector.select(timeout_seconds):
            if key.fileobj is self._stdout:
                lines += self._read_stdout()
            else:
                self._read_stderr()
        return lines

    def send(self, line: bytes) -> None:
        """Write a line to its stdin, unless it has closed it. The few short lines that it has not read fit the pipe."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._process.stdin.fileno(), line)

    def close_stdin(self) -> None:
        """Let it know that no line follows."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def stop(self) -> None:
        """Send SIGTERM: the trainer writes a checkpoint and ends."""
        if not self.has_ended:
            self._process.terminate()

    def kill(self) -> None:
        """Kill its process group."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def kill_and_reap(self) -> list[bytes]:
        """Kill the process group, reap the process, and return the lines that were still in the pipe."""
        self.kill()
        self._process.wait()
        lines: list[bytes] = []
        for _ in range(_MAX_FINAL_CHUNKS):  # a pipe holds less; a child outside the group might write without end
            lines += self._read_stdout()
            self._read_stderr()
        lines += self._lines.flush()
        self._selector.close()
        self.close_stdin()
        self._stdout.close()
        self._stderr.close()
        return lines

    def describe_exit(self) -> str:
        """Return a sentence about the exit status. Only after `kill_and_reap`."""
        code = self._process.returncode
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return "the trainer was killed (SIGKILL), possibly out of memory"
        if code < 0:
            return f"the trainer was terminated by {_signal_name(-code)}"
        if code == 0:
            return "the trainer ended without a result"
        return f"the trainer ended with exit code {code}"

    def _select_stdout(self, selected: bool) -> None:
        registered = self._stdout in self._selector.get_map()
        if selected and not registered and not self.stdout_closed:
            self._selector.register(self._stdout, selectors.EVENT_READ)
        elif registered and not selected:
            self._selector.unregister(self._stdout)

    def _read_stdout(self) -> list[bytes]:
        chunk = _read(self._stdout)
        if chunk == b"" and not self.stdout_closed:
            self.stdout_closed = True
            self._select_stdout(False)
        return self._lines.feed(chunk or b"")

    def _read_stderr(self) -> None:
        chunk = _read(self._stderr)
        if chunk:
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
            self._on_stderr(chunk)
        elif chunk == b"" and self._stderr in self._selector.get_map():
            self._selector.unregister(self._stderr)


class LineSplitter:
    """Splits chunks of bytes into whole lines. Lines are truncated to `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes, without newlines and without empty lines."""
        *ends, rest = chunk.split(b"\n")
        lines = [line for end in ends if (line := self._end_line(end))]
        self._append(rest)
        return lines

    def flush(self) -> list[bytes]:
        """Return the bytes after the last newline, if any."""
        return [line] if (line := self._end_line(b"")) else []

    def _end_line(self, end: bytes) -> bytes:
        self._append(end)
        line = b"".join(self._parts)
        self._parts, self._length = [], 0
        return line

    def _append(self, part: bytes) -> None:
        room = self._max_bytes - self._length
        if part and room > 0:
            self._parts.append(part[:room])
        self._length += len(part)


def _drop_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Drop the service's credentials: trainers open untrusted files and may be third-party programs."""
    return {name: value for name, value in environment.items() if name not in _SECRETS}


def _read(pipe: IO[bytes]) -> bytes | None:
    """Return the bytes in the pipe: empty at its end, None when it holds none now."""
    try:
        return os.read(pipe.fileno(), _CHUNK_BYTES)
    except BlockingIOError:
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
