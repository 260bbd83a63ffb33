"""The tracer: runs a function in a child, stops it at each system call on a folder, and injects one fault.

Faults at call i, counted from 0:
    kill     SIGKILL before the call
    torn     half of the bytes of a write are written, then SIGKILL
    enospc   the call fails: no space is left
    full     from this call on the disk is full: a write is done by half, all later ones fail; files can be removed
    eio      the call fails: input/output error; a close is executed nevertheless
    gone     from this call on every call fails with an input/output error, but for closing
"""

import errno
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.syscalls import ptrace
from tests.faults.syscalls.calls import WRITES, Call, Reader
from tests.faults.syscalls.numbers import this_architecture

FAULTS = ("kill", "torn", "enospc", "full", "eio", "gone")
HUNG_SECONDS = 60
KILLING = ("kill", "torn")
_FREEING = ("unlink", "unlinkat", "rmdir", "close", "fsync", "fdatasync")


@dataclass
class Run:
    """What one child did. `answer`: what the function returned, or None when it was killed or ended otherwise."""

    calls: list[Call] = field(default_factory=list)
    answer: Any = None
    status: int = 0
    injected: bool = False


def applies(fault: str, call: Call) -> bool:
    """Whether the fault can happen at that call."""
    if fault == "torn":
        return call.name in WRITES and call.size > 1
    if fault in ("enospc", "full"):
        return call.changes and not (fault == "full" and call.name in _FREEING)
    return call.changes or fault in ("eio", "gone")


def run(
    action: Callable[[], Any],
    folder: Path,
    *,
    fault: str | None = None,
    at: int = -1,
    ignored: tuple[str, ...] = (),
    results: bool = False,
) -> Run:
    """Run `action` in a forked child with a fault at call `at`; its answer is a plain JSON value.

    results: whether to record what each call returned. Raises ptrace.NotPermitted.
    """
    return _Tracer(folder, fault, at, ignored, results).run(action)


def run_alone(action: Callable[[], Any]) -> Any:
    """Run `action` in a forked child without tracing and return its answer. Raises RuntimeError when it ends early."""
    pid, answers = _fork(action, lambda: None)
    _, status = os.waitpid(pid, 0)
    answer = _read_answer(answers)
    if answer is None:
        raise RuntimeError(f"the child ended with status {status}")
    return answer


class _Tracer:
    def __init__(self, folder: Path, fault: str | None, at: int, ignored: tuple[str, ...], results: bool) -> None:
        self._architecture = this_architecture()
        self._reader = Reader(self._architecture, folder, ignored)
        self._fault, self._at, self._results = fault, at, results
        self._run = Run()
        self._started: set[int] = set()
        self._in_call: dict[int, tuple[Call, str | None]] = {}  # by thread: the call until its exit, and the fault
        self._pid = 0

    def run(self, action: Callable[[], Any]) -> Run:
        self._pid, answers = _fork(action, lambda: ptrace.become_traced(self._architecture, self._reader.numbers))
        _, status = os.waitpid(self._pid, ptrace.WAIT_ALL)
        if os.WIFSTOPPED(status):
            ptrace.attach_options(self._pid)
            self._started.add(self._pid)
            ptrace.resume(self._pid)
            self._follow()
        self._run.answer = _read_answer(answers)
        if isinstance(self._run.answer, dict) and "not_permitted" in self._run.answer:
            raise ptrace.NotPermitted(self._run.answer["not_permitted"])
        return self._run

    def _follow(self) -> None:
        """Answer each stop of the child and its threads until all have ended."""
        while True:
            try:
                tid, status = os.waitpid(-self._pid, ptrace.WAIT_ALL)  # those of the child's process group
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                if tid == self._pid:
                    self._run.status = status
                continue
            try:
                self._answer_stop(tid, os.WSTOPSIG(status), status >> 16)
            except (ProcessLookupError, FileNotFoundError):  # killed meanwhile
                continue

    def _answer_stop(self, tid: int, number: int, event: int) -> None:
        if event == ptrace.EVENT_SECCOMP:
            self._enter(tid)
        elif number == ptrace.EXIT_STOP:
            self._leave(tid)
        elif event or (number == signal.SIGSTOP and tid not in self._started):
            self._started.add(tid)
            ptrace.resume(tid)
        else:
            ptrace.resume(tid, number)

    def _enter(self, tid: int) -> None:
        """A thread is about to make a call."""
        registers = ptrace.Registers(self._architecture, tid)
        call = self._reader.read(tid, registers)
        if call is None:
            ptrace.resume(tid)
            return
        place = len(self._run.calls)
        self._run.calls.append(call)
        fault = self._fault_at(place, call)
        if fault == "kill":
            os.kill(self._pid, signal.SIGKILL)
            ptrace.resume(tid)
            return
        if fault is not None and call.name in WRITES and (fault == "torn" or (fault == "full" and place == self._at)):
            registers.set_argument(2, max(1, call.size // 2))
            self._run_to_exit(tid, call, "torn" if fault == "torn" else None)
        elif fault is not None and call.name == "close":
            self._run_to_exit(tid, call, fault)
        elif fault is not None:
            registers.skip(-(errno.ENOSPC if fault in ("enospc", "full") else errno.EIO))
            ptrace.resume(tid)
        elif self._results:
            self._run_to_exit(tid, call, None)
        else:
            ptrace.resume(tid)

    def _run_to_exit(self, tid: int, call: Call, fault: str | None) -> None:
        self._in_call[tid] = call, fault
        ptrace.resume(tid, to_exit=True)

    def _leave(self, tid: int) -> None:
        """A thread has made its call."""
        call, fault = self._in_call.pop(tid)
        registers = ptrace.Registers(self._architecture, tid)
        call.result = registers.result
        if fault == "torn":
            os.kill(self._pid, signal.SIGKILL)
        elif fault is not None:
            registers.set_result(-(errno.ENOSPC if fault in ("enospc", "full") else errno.EIO))
        ptrace.resume(tid)

    def _fault_at(self, place: int, call: Call) -> str | None:
        if self._fault is None or place < self._at:
            return None
        if place == self._at:
            self._run.injected = True
            return self._fault
        lasting = self._fault in ("full", "gone") and applies(self._fault, call)
        return self._fault if lasting and call.name != "close" else None


def _fork(action: Callable[[], Any], prepare: Callable[[], None]) -> tuple[int, int]:
    """Start a child and return its id, and the pipe that gets its answer."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    try:
        os.close(read_end)
        os.setpgid(0, 0)
        signal.alarm(HUNG_SECONDS)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            prepare()
            answer = action()
        except ptrace.NotPermitted as error:
            answer = {"not_permitted": str(error)}
        except BaseException as error:  # noqa: BLE001 - it is the answer
            answer = {"raised": f"{type(error).__name__}: {error}"}
        os.write(write_end, json.dumps(answer).encode())
    finally:
        os._exit(0)


def _read_answer(pipe: int) -> Any:
    with os.fdopen(pipe, "rb") as file:
        data = file.read()
    return json.loads(data) if data else None
