"""Helpers for tests of processes: whether one is alive, and waiting for a condition."""

import time
from collections.abc import Callable

import psutil


def alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def soon(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition holds. Raises AssertionError after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition did not become true"
        time.sleep(0.02)
