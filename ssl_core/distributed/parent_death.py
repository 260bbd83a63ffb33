"""Parent-death signal: the kernel kills a child process when its parent ends. Linux only."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_prctl = (
    ctypes.CDLL(None).prctl if sys.platform == "linux" else None
)  # loaded now: a library must not be loaded after a fork


def die_with_parent(parent: int) -> None:
    """Send this process SIGKILL when the thread that started it ends; `parent` is that thread's process id.

    Survives an exec. Calls only prctl and getppid, so it may run between fork and exec.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the prctl
            os.kill(os.getpid(), signal.SIGKILL)
