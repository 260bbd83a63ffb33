"""The sandbox: kernel resource limits for a process that opens untrusted files.

Limits that the platform does not have are skipped.
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


class CpuTimeExceeded(BaseException):  # so that no decoder takes it for damage of a file
    """The process has used its CPU time."""


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Limits of a process; `file_bytes` is for each file that it writes."""

    memory_bytes: int
    cpu_seconds: int
    file_bytes: int
    open_files: int = 128


def enter(limits: ResourceLimits) -> None:
    """Limit this process until it ends. At the end of its CPU time the main thread raises CpuTimeExceeded."""
    _set_no_new_privileges()
    if sys.platform == "win32":
        return
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NOFILE, limits.open_files)
    if sys.platform == "linux":  # elsewhere it also counts shared memory, or cannot be limited
        _limit(resource.RLIMIT_AS, limits.memory_bytes)
    signal.signal(signal.SIGXCPU, _raise_cpu_time_exceeded)
    _limit(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + _CPU_GRACE_SECONDS)


def address_space_bytes() -> int:
    """Return the address space of this process, which `memory_bytes` limits; 0 on platforms but Linux."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _set_no_new_privileges() -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _limit(resource_id: int, soft: int, hard: int | None = None) -> None:
    """Set the limit, at most to the process's present hard limit."""
    if sys.platform == "win32":
        return
    _, ceiling = resource.getrlimit(resource_id)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(resource_id, (soft, hard))


def _raise_cpu_time_exceeded(number: int, frame: FrameType | None) -> None:
    raise CpuTimeExceeded(str(CpuTimeExceeded.__doc__))
