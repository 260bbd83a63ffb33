"""Other processes, as a test sees them: whether one lives, and whether what it is to do has happened."""

import time
from collections.abc import Callable

import psutil


def alive(pid: int) -> bool:
    """Whether the process is there, and not merely waiting to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def soon(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition holds; it is an error when it does not within the time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)
