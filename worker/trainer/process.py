"""A trainer's process: started, read line by line, stopped, and cleared away with everything that it started.

It runs in a session of its own, so that a signal to its group reaches its children and nobody else's. The kernel kills
it when the process that started it ends. That is asked for between fork and exec and not left to the trainer, because
trainers may be anybody's; that place is safe here because a Celery child runs one thread.
"""

import contextlib
import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from ssl_core.distributed import parent_death

MAX_LINE_BYTES = 4 * 2**20
_TAIL_BYTES = 8 * 2**10
_CHUNK_BYTES = 2**18
_MOST_CHUNKS_LEFT = 8
_SECRETS = frozenset({"TWOVIEWS_DATABASE_URL", "TWOVIEWS_BROKER_URL", "TWOVIEWS_ENCODER_TOKEN", "TWOVIEWS_KEY"})


class TrainerProcess:
    """A running trainer. Raises OSError when the command cannot be started."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=_without_secrets(os.environ),
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
        self.silent = False  # it closed its stdout: nothing more will come

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process itself has ended; its children may not have."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        # Left unreaped until `clear_away`: so long, no other process can get its id, and its group may be killed.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def stderr_tail(self) -> str:
        """The last of what it wrote to stderr."""
        return self._tail.decode("utf-8", "replace").strip()

    def read(self, timeout_seconds: float, listening: bool = True) -> list[bytes]:
        """Return the lines that came within the time; when not `listening`, its stdout is left to fill up."""
        self._listen(listening)
        lines: list[bytes] = []
        for key, _ in self._selector.select(timeout_seconds):
            if key.fileobj is self._stdout:
                lines += self._read_stdout()
            else:
                self._read_stderr()
        return lines

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""
        if not self.ended:
            self._process.terminate()

    def kill(self) -> None:
        """Kill it and whatever it started."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def clear_away(self) -> list[bytes]:
        """Kill what is left of it and of its children, reap it, and return the lines that were still in the pipe."""
        self.kill()
        self._process.wait()
        lines: list[bytes] = []
        for _ in range(_MOST_CHUNKS_LEFT):  # a pipe holds less; a child that fled the group might write for ever
            lines += self._read_stdout()
            self._read_stderr()
        lines += self._lines.rest()
        self._selector.close()
        self._stdout.close()
        self._stderr.close()
        return lines

    def exit_sentence(self) -> str:
        """Say how it ended, for people. Only after `clear_away`."""
        code = self._process.returncode
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return "the trainer was killed (SIGKILL), perhaps because memory ran out"
        if code < 0:
            return f"the trainer was ended by {_signal_name(-code)}"
        if code == 0:
            return "the trainer ended without a result"
        return f"the trainer ended with exit code {code}"

    def _listen(self, listening: bool) -> None:
        registered = self._stdout in self._selector.get_map()
        if listening and not registered and not self.silent:
            self._selector.register(self._stdout, selectors.EVENT_READ)
        elif registered and not listening:
            self._selector.unregister(self._stdout)

    def _read_stdout(self) -> list[bytes]:
        chunk = _read(self._stdout)
        if chunk == b"" and not self.silent:
            self.silent = True
            self._listen(False)
        return self._lines.feed(chunk or b"")

    def _read_stderr(self) -> None:
        chunk = _read(self._stderr)
        if chunk:
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        elif chunk == b"" and self._stderr in self._selector.get_map():
            self._selector.unregister(self._stderr)


class LineSplitter:
    """Bytes as they come, in; whole lines, out. Of a line longer than `longest` bytes only the start comes out."""

    def __init__(self, longest: int = MAX_LINE_BYTES) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes, without their newlines; empty lines are left out."""
        *ends, rest = chunk.split(b"\n")
        lines = [line for end in ends if (line := self._complete(end))]
        self._keep(rest)
        return lines

    def rest(self) -> list[bytes]:
        """Return what came after the last newline."""
        return [line] if (line := self._complete(b"")) else []

    def _complete(self, end: bytes) -> bytes:
        self._keep(end)
        line = b"".join(self._parts)
        self._parts, self._length = [], 0
        return line

    def _keep(self, part: bytes) -> None:
        room = self._longest - self._length
        if part and room > 0:
            self._parts.append(part[:room])
        self._length += len(part)


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What a trainer may know: one opens untrusted images, another may be anybody's program."""
    return {name: value for name, value in environment.items() if name not in _SECRETS}


def _read(pipe: IO[bytes]) -> bytes | None:
    """Return what is in the pipe; empty at its end, None when there is nothing just now."""
    try:
        return os.read(pipe.fileno(), _CHUNK_BYTES)
    except BlockingIOError:
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
