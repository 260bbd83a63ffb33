"""A guard: a process that kills process groups when its parent ends, on platforms where the kernel does not (macOS)."""

import contextlib
import subprocess
import sys

_CODE = """
import os, signal, sys
groups = set()
for line in sys.stdin.buffer:  # ends with the parent
    change = groups.add if line[:1] == b"+" else groups.discard
    change(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
"""


class Guard:
    """Starts at the first group, and ends with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def add(self, group: int) -> None:
        """Kill the process group when this process ends."""
        if self._process is None:
            command = [sys.executable, "-P", "-c", _CODE]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        self._send(f"+{group}\n")

    def discard(self, group: int) -> None:
        """Leave the process group alone: it has been killed and reaped, and another may get its id."""
        if self._process is not None:
            self._send(f"-{group}\n")

    def _send(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the guard itself was killed
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
