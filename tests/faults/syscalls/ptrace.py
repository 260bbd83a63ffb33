"""ptrace and seccomp through ctypes: a child that stops at chosen system calls, and what its tracer reads and changes.

A seccomp filter names the calls, so that all others run at full speed. Neither strace nor a compiler is needed.
"""

import ctypes
import errno
import os
import signal
import sys
from collections.abc import Iterable

from tests.faults.syscalls.numbers import Architecture

EVENT_SECCOMP = 7
EXIT_STOP = signal.SIGTRAP | 0x80  # PTRACE_O_TRACESYSGOOD
WAIT_ALL = 0x40000000  # __WALL: threads too

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS, _GETREGSET, _SETREGSET = 0, 7, 24, 0x4200, 0x4204, 0x4205
# TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC, TRACESECCOMP and EXITKILL
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
_NT_PRSTATUS, _NT_ARM_SYSTEM_CALL = 1, 0x404
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_SECCOMP_TRACE, _SECCOMP_ALLOW = 0x7FF00000, 0x7FFF0000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF: ld word, jeq constant, ret constant
_WORDS = 40


class NotPermitted(Exception):
    """The system does not let a process trace its child, so that no fault can be injected at a system call."""

    @classmethod
    def by(cls, call: str) -> "NotPermitted":
        """Return the error of a call that has just failed."""
        return cls(
            f"{call} failed: {os.strerror(ctypes.get_errno())}. These tests trace their own children with ptrace and a "
            "seccomp filter, for which a container may need --cap-add=SYS_PTRACE or --security-opt seccomp=unconfined."
        )


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    _libc.ptrace.restype = ctypes.c_long
    _libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)


def become_traced(architecture: Architecture, numbers: Iterable[int]) -> None:
    """Stop this process for its parent, and then at each call of these numbers. Raises NotPermitted."""
    if _libc.ptrace(_TRACEME, 0, None, None) != 0:
        raise NotPermitted.by("PTRACE_TRACEME")
    os.kill(os.getpid(), signal.SIGSTOP)
    wanted = sorted(numbers)
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 0, len(wanted) + 1, architecture.audit), (_LOAD, 0, 0, 0)]
    lines += [(_EQUAL, len(wanted) - place, 0, number) for place, number in enumerate(wanted)]
    lines += [(_RETURN, 0, 0, _SECCOMP_ALLOW), (_RETURN, 0, 0, _SECCOMP_TRACE)]
    program = _Program(len(lines), (_Instruction * len(lines))(*lines))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, None, 0, 0) != 0:
        raise NotPermitted.by("PR_SET_NO_NEW_PRIVS")
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0) != 0:
        raise NotPermitted.by("PR_SET_SECCOMP")


def attach_options(pid: int) -> None:
    """Follow the threads and children of a stopped child, and kill it with this process. Raises NotPermitted."""
    _ptrace(_SETOPTIONS, pid, None, _OPTIONS)


def resume(tid: int, signal_number: int = 0, *, to_exit: bool = False) -> None:
    """Let a stopped thread go on, with `to_exit` only to the end of the call that it is in. A dead one is ignored."""
    try:
        _ptrace(_SYSCALL if to_exit else _CONT, tid, None, signal_number)
    except ProcessLookupError:
        pass


class Registers:
    """The registers of a stopped thread at a system call. Raises ProcessLookupError when it has been killed."""

    def __init__(self, architecture: Architecture, tid: int) -> None:
        self._architecture, self._tid = architecture, tid
        self._words = (ctypes.c_uint64 * _WORDS)()
        self._vector = _Vector(ctypes.addressof(self._words), ctypes.sizeof(self._words))
        _ptrace(_GETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(self._vector))

    @property
    def number(self) -> int:
        return int(self._words[self._architecture.number])

    @property
    def result(self) -> int:
        """What the call has returned; a negative number is an errno."""
        return ctypes.c_int64(self._words[self._architecture.result]).value

    def argument(self, position: int) -> int:
        """Return an argument, as a signed number."""
        return ctypes.c_int64(self._words[self._architecture.arguments[position]]).value

    def set_argument(self, position: int, value: int) -> None:
        self._words[self._architecture.arguments[position]] = value
        self._write()

    def set_result(self, value: int) -> None:
        """Change what the call returns; only after it has been executed."""
        self._words[self._architecture.result] = value & (2**64 - 1)
        self._write()

    def skip(self, result: int) -> None:
        """Do not execute the call, and return this result."""
        if self._architecture.skip_by_regset:
            number = ctypes.c_int32(-1)
            vector = _Vector(ctypes.addressof(number), ctypes.sizeof(number))
            _ptrace(_SETREGSET, self._tid, _NT_ARM_SYSTEM_CALL, ctypes.addressof(vector))
        else:
            self._words[self._architecture.number] = 2**64 - 1
        self.set_result(result)

    def _write(self) -> None:
        _ptrace(_SETREGSET, self._tid, _NT_PRSTATUS, ctypes.addressof(self._vector))


def _ptrace(request: int, tid: int, address: int | None, data: int | None) -> None:
    if _libc.ptrace(request, tid, address, data) != 0:
        if (number := ctypes.get_errno()) == errno.ESRCH:
            raise ProcessLookupError(number, os.strerror(number))
        raise NotPermitted.by(f"ptrace request {request:#x}")
