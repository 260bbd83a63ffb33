"""The supervisor: sees one attempt at a job through, from a claimed row to a verdict.

It starts the trainer, stores what it says, keeps the lease, passes on "cancel" and "stop", and clears the process away.
No thread and no torch: one loop that waits for the trainer's pipe for a moment, then looks at the ledger and the clock.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from sqlalchemy.orm import Session

from service import leases
from service.db.session import Database
from service.db.statuses import JobStatus
from service.event_handlers import BadEvent
from service.leases import Claim, LeaseLost
from service.settings import Settings
from service.storage import Storage
from ssl_core.errors import StorageFull
from ssl_core.events import Failed, Log, Result, Stopped, from_line
from ssl_core.files import FULL
from worker.trainer import command, temporaries
from worker.trainer.ledger import Ledger
from worker.trainer.process import TrainerProcess

_TICK_SECONDS = 0.1  # how soon a stop or a cancel is seen
_MOST_COMPLAINTS = 20  # of one attempt, about lines that are no events
_MOST_LAST_WORDS = 300  # characters
_log = logging.getLogger(__name__)


def supervise(
    claim: Claim,
    database: Database,
    storage: Storage,
    settings: Settings,
    stopping: Callable[[], bool],
    seen: Callable[[Session], object] = lambda session: None,
) -> None:
    """Run the claimed attempt to its end and store the verdict; write nothing more once the lease is lost.

    `stopping` says that the worker is to end: the trainer writes a checkpoint, and the job goes back to the queue,
    uncounted. `seen` is called in a transaction, at about each heartbeat that the database has heard.
    """
    folder = command.folder(claim, storage)
    ledger = Ledger(claim, storage.relative(folder), database, settings, seen)
    attempt = _Attempt(claim, ledger, settings, stopping)
    try:
        try:
            attempt.run(partial(command.build, claim, storage, settings, ledger))
            temporaries.remove(folder)  # before the verdict: after it, nobody would come back to do so
            ledger.close(attempt.verdict())
        except BadEvent as error:
            temporaries.remove(folder)
            ledger.close(attempt.protest(error))
    except LeaseLost as lost:
        _log.warning("Attempt %d at %s is not ours any more: %s", claim.attempt, claim.job_id, lost)
        temporaries.remove(folder)


class _Attempt:
    """What is known of a running attempt, and what follows from it."""

    def __init__(self, claim: Claim, ledger: Ledger, settings: Settings, stopping: Callable[[], bool]) -> None:
        self._fault = ""
        self._no_room = False
        self._stderr = ""
        self._ledger = ledger
        self._grace_seconds = settings.grace_seconds
        held: dict[str, Any] = {"job_id": claim.job_id, "attempt": claim.attempt}
        self._finish: Callable[..., object] = partial(leases.finish, **held)
        self._release: Callable[..., object] = partial(leases.release, **held, policy=leases.RetryPolicy.of(settings))
        self._stopping = stopping
        self._asked: Literal["cancel", "pause", "stop"] | None = None
        self._last: Result | Failed | Stopped | None = None
        self._kill_at: float | None = None
        self._complaints = 0

    def run(self, build: Callable[[], list[str]]) -> None:
        """Start the trainer and listen until it has ended. Raises LeaseLost and BadEvent."""
        try:
            process = TrainerProcess(build())
        except (OSError, ValueError) as error:
            self._fault = f"the trainer could not be started: {error}"
            self._no_room = isinstance(error, OSError) and error.errno in FULL
            return
        self._watch(process)

    def verdict(self) -> Callable[[Session], object]:
        """Return what to write of how it ended."""
        if self._ledger.signal == "cancel":
            return partial(self._finish, status=JobStatus.CANCELLED, error=None)
        if isinstance(self._last, Result):
            return partial(self._finish, status=JobStatus.SUCCEEDED, error=None)
        if isinstance(self._last, Failed) and not self._last.retry:
            error = {**self._last.data, "code": self._last.code, "detail": self._last.message}
            return partial(self._finish, status=JobStatus.FAILED, error=error)
        if self._asked == "pause":
            return partial(self._release, reason="Paused.", counts=False)
        if self._asked == "stop" or self._stopping():
            return partial(self._release, reason="The worker was stopped.", counts=False)
        if self._no_room:  # no fault of the job's, and it may last: a job waits for as long as it takes
            return partial(self._release, reason="The storage is full.", counts=False, waits=True)
        reason = self._reason()
        self._ledger.add(Log("error", f"The attempt failed: {reason}", "attempt_failed", {"stderr": self._stderr}))
        return partial(self._release, reason=reason, counts=True)

    def protest(self, error: BadEvent) -> Callable[[Session], object]:
        """Return what to write when the trainer said something that cannot be: another attempt would say it again."""
        return partial(self._finish, status=JobStatus.FAILED, error={"code": "bad_event", "detail": str(error)})

    def _watch(self, process: TrainerProcess) -> None:
        """Listen until the trainer has ended, and leave nothing of it behind."""
        rest: list[bytes] = []
        try:
            while not process.ended:
                self._hear(process.read(_TICK_SECONDS, listening=not self._ledger.full))
                self._ledger.sync()
                self._steer(process)
        finally:
            rest = process.clear_away()
        self._hear(rest)
        self._fault = process.exit_sentence()
        self._stderr = process.stderr_tail

    def _hear(self, lines: list[bytes]) -> None:
        for line in lines:
            try:
                event = from_line(line)
            except (ValueError, RecursionError):
                self._complain(line)
                continue
            self._ledger.add(event)
            if isinstance(event, Result | Failed | Stopped):
                self._last = event
                self._no_room = isinstance(event, Failed) and event.code == StorageFull.code

    def _complain(self, line: bytes) -> None:
        self._complaints += 1
        if self._complaints <= _MOST_COMPLAINTS:
            start = line[:200].decode("utf-8", "replace")
            message = "The trainer wrote a line that is not an event."
            self._ledger.add(Log("warning", message, "not_an_event", {"start": start, "bytes": len(line)}))

    def _steer(self, process: TrainerProcess) -> None:
        """Pass on what is asked of the attempt; kill what has not ended in time."""
        now = time.monotonic()
        if self._asked is None and (asked := self._wish()) is not None:
            self._asked, self._kill_at = asked, now + self._grace_seconds
            process.stop()
        elif self._kill_at is None and (self._last is not None or process.silent):
            self._kill_at = now + self._grace_seconds  # it has said its last word, so it should be gone
        if self._kill_at is not None and now >= self._kill_at:
            process.kill()

    def _wish(self) -> Literal["cancel", "pause", "stop"] | None:
        if self._ledger.signal != "run":
            return self._ledger.signal
        return "stop" if self._stopping() else None

    def _reason(self) -> str:
        if isinstance(self._last, Failed):
            return f"{self._last.code}: {self._last.message}"
        if isinstance(self._last, Stopped):
            return "the trainer was stopped by somebody else"
        last_words = self._stderr.rpartition("\n")[2][:_MOST_LAST_WORDS]
        return f"{self._fault}: {last_words}" if last_words else self._fault
