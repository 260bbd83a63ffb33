"""The sandbox: what a process that opens untrusted bytes may use, from the moment it enters until it ends.

Limits are the kernel's. Where the platform has no such thing, that part does nothing.
"""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

if sys.platform != "win32":
    import resource

_PR_SET_NO_NEW_PRIVS = 38
_CPU_GRACE_SECONDS = 10


class OutOfTime(Exception):
    """The process has used the CPU time that it was given."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the process may use; `file_bytes` is of any one file that it writes."""

    memory_bytes: int
    cpu_seconds: int
    file_bytes: int
    open_files: int = 128


def enter(allowance: Allowance) -> None:
    """Bind this process, for good. At the end of its CPU time the main thread gets OutOfTime."""
    _allow_no_new_privileges()
    if sys.platform == "win32":
        return
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, allowance.file_bytes)
    _limit(resource.RLIMIT_NOFILE, allowance.open_files)
    if sys.platform == "linux":  # elsewhere the address space also counts what is shared, or cannot be limited
        _limit(resource.RLIMIT_AS, allowance.memory_bytes)
    signal.signal(signal.SIGXCPU, _out_of_time)
    _limit(resource.RLIMIT_CPU, allowance.cpu_seconds, allowance.cpu_seconds + _CPU_GRACE_SECONDS)


def taken_bytes() -> int:
    """Return the address space that this process has now, which an allowance counts."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _allow_no_new_privileges() -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    """Set the limit, never above the hard one that the process came with."""
    if sys.platform == "win32":
        return
    _, ceiling = resource.getrlimit(what)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(what, (soft, hard))


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise OutOfTime(str(OutOfTime.__doc__))
