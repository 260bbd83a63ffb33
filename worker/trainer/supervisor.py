"""The supervisor: runs one attempt at a job, from the claimed row to its outcome.

It starts the trainer, stores its events, renews the lease, forwards "cancel" and "stop", and kills the process group.
No thread and no torch: one loop polls the trainer's pipe, the event writer and the clock.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

from sqlalchemy.orm import Session

from service import leases
from service.db.session import Database
from service.db.statuses import JobStatus
from service.event_handlers import BadEvent
from service.leases import Claim, LeaseLost
from service.settings import Settings
from service.storage import Storage
from ssl_core.errors import ModelMissing, StorageFull
from ssl_core.events import Failed, Log, Result, Stopped, from_line
from ssl_core.files import FULL, describe
from worker.trainer import command, temporaries
from worker.trainer.event_writer import EventWriter
from worker.trainer.process import TrainerProcess
from worker.trainer.shard_feeder import ShardFeeder
from worker.trainer.trainer_log import TrainerLog

_POLL_SECONDS = 0.1  # latency of a stop or a cancel
_MAX_INVALID_LINES = 20  # logged per attempt
_MAX_STDERR_CHARS = 300  # of the last line, in the reason of a failure
_log = logging.getLogger(__name__)
_Request = Literal["cancel", "pause", "stop", "expire"]
_EXPIRED = {
    "code": "max_runtime",
    "detail": "The job has run for its `max_runtime`; a retry goes on from its last checkpoint.",
}
Outcome: TypeAlias = "partial[object]"  # the write of `service.leases` that ends the attempt; takes the session


def supervise(
    claim: Claim,
    database: Database,
    storage: Storage,
    settings: Settings,
    is_stopping: Callable[[], bool],
    mark_seen: Callable[[Session], object] = lambda session: None,
) -> None:
    """Run the claimed attempt and store its outcome; write nothing once the lease is lost.

    When `is_stopping` returns true, the trainer writes a checkpoint and the job is requeued without counting the
    attempt. `mark_seen` is called in a transaction at about each heartbeat.
    """
    folder = command.output_folder(claim, storage)
    events = EventWriter(claim, folder, storage.relative(folder), database, settings, mark_seen)
    feeder = ShardFeeder(claim, folder, database) if claim.shards_of is not None else None
    attempt = _Attempt(claim, events, settings, is_stopping, feeder)
    try:
        try:
            attempt.run(partial(command.build, claim, storage, settings, events))
            temporaries.remove(folder)  # before the outcome: after it no other attempt would remove them
            outcome = attempt.choose_outcome()
            events.close(outcome)
        except BadEvent as error:
            temporaries.remove(folder)
            outcome = attempt.reject_event(error)
            events.close(outcome)
        _log.info("Attempt %d at %s has ended: %s", claim.attempt, claim.job_id, _describe(outcome))
    except LeaseLost as lost:
        _log.warning("Attempt %d at %s has lost its lease: %s", claim.attempt, claim.job_id, lost)
        temporaries.remove(folder)


class _Attempt:
    """The state of a running attempt, and the outcome that follows from it."""

    def __init__(
        self,
        claim: Claim,
        events: EventWriter,
        settings: Settings,
        is_stopping: Callable[[], bool],
        feeder: ShardFeeder | None,
    ) -> None:
        self._feeder = feeder
        self._exit_reason = ""
        self._storage_full = False
        self._stderr = ""
        self._events = events
        self._trainer_log = TrainerLog()
        self._grace_seconds = settings.grace_seconds
        row: dict[str, Any] = {"job_id": claim.job_id, "attempt": claim.attempt}
        self._finish: Callable[..., object] = partial(leases.finish, **row)
        self._release: Callable[..., object] = partial(leases.release, **row, policy=leases.RetryPolicy.of(settings))
        self._is_stopping = is_stopping
        self._requested: _Request | None = None
        self._expires_at = None if claim.seconds_left is None else time.monotonic() + claim.seconds_left
        self._final_event: Result | Failed | Stopped | None = None
        self._kill_at: float | None = None
        self._invalid_lines = 0

    def run(self, build: Callable[[], list[str]]) -> None:
        """Start the trainer and read its events until it has ended. Raises LeaseLost and BadEvent."""
        if self._has_expired():
            self._requested = "expire"
            return
        try:
            process = TrainerProcess(build(), self._trainer_log.add_stderr, takes_lines=self._feeder is not None)
        except ModelMissing as error:
            self._final_event = Failed(error.code, str(error))
            return
        except (OSError, ValueError) as error:
            reason = describe(error) if isinstance(error, OSError) else error
            self._exit_reason = f"the trainer could not be started: {reason}"
            self._storage_full = isinstance(error, OSError) and error.errno in FULL
            return
        self._read_until_exit(process)

    def choose_outcome(self) -> Outcome:
        """Return the write that finishes or releases the job."""
        if self._events.signal == "cancel":
            return partial(self._finish, status=JobStatus.CANCELLED, error=None)
        if isinstance(self._final_event, Result):
            return partial(self._finish, status=JobStatus.SUCCEEDED, error=None)
        if isinstance(self._final_event, Failed) and not self._final_event.retry:
            error = {**self._final_event.data, "code": self._final_event.code, "detail": self._final_event.message}
            return partial(self._finish, status=JobStatus.FAILED, error=error)
        if self._requested == "expire":
            return partial(self._finish, status=JobStatus.FAILED, error=_EXPIRED)
        if self._requested == "pause":
            return partial(self._release, reason="Stopped at a checkpoint for a pause.", counts=False)
        if self._requested == "stop" or self._is_stopping():
            return partial(self._release, reason="The worker was stopped.", counts=False)
        if self._storage_full:  # not the job's fault: it waits without a limit
            return partial(self._release, reason="The storage is full.", counts=False, waits=True)
        reason = self._describe_failure()
        self._events.add(Log("error", f"The attempt failed: {reason}", "attempt_failed", {"stderr": self._stderr}))
        return partial(self._release, reason=reason, counts=True)

    def reject_event(self, error: BadEvent) -> Outcome:
        """Return the write that fails the job for an invalid event, which another attempt would repeat."""
        return partial(self._finish, status=JobStatus.FAILED, error={"code": "bad_event", "detail": str(error)})

    def _read_until_exit(self, process: TrainerProcess) -> None:
        """Read events until the trainer has ended, then kill its process group."""
        rest: list[bytes] = []
        try:
            while not process.has_ended:
                self._add_events(process.read(_POLL_SECONDS, with_stdout=not self._events.is_full))
                self._events.flush()
                self._forward_request(process)
                if self._feeder is not None and self._requested is None:
                    self._feeder.feed(process, self._events)
        finally:
            rest = process.kill_and_reap()
        self._add_events(rest)
        self._trainer_log.close()
        self._exit_reason = process.describe_exit()
        self._stderr = process.stderr_tail

    def _add_events(self, lines: list[bytes]) -> None:
        for line in lines:
            try:
                event = from_line(line)
            except (ValueError, RecursionError):
                self._log_invalid(line)
                continue
            self._events.add(event)
            if self._feeder is not None:
                self._feeder.observe(event)
            if isinstance(event, Log):
                self._trainer_log.add_event(event)
            if isinstance(event, Result | Failed | Stopped):
                self._final_event = event
                self._storage_full = isinstance(event, Failed) and event.code == StorageFull.code

    def _log_invalid(self, line: bytes) -> None:
        self._invalid_lines += 1
        if self._invalid_lines <= _MAX_INVALID_LINES:
            start = line[:200].decode("utf-8", "replace")
            message = "The trainer wrote a line that is not an event."
            self._events.add(Log("warning", message, "not_an_event", {"start": start, "bytes": len(line)}))

    def _forward_request(self, process: TrainerProcess) -> None:
        """Stop the trainer on a request; kill it when it has not ended within the grace time."""
        now = time.monotonic()
        if self._requested is None and (request := self._read_request()) is not None:
            self._requested, self._kill_at = request, now + self._grace_seconds
            process.stop()
        elif self._kill_at is None and (self._final_event is not None or process.stdout_closed):
            self._kill_at = now + self._grace_seconds  # no event can follow, so it should end
        if self._kill_at is not None and now >= self._kill_at:
            process.kill()

    def _read_request(self) -> _Request | None:
        if self._events.signal != "run":
            return self._events.signal
        if self._is_stopping():
            return "stop"
        return "expire" if self._has_expired() else None

    def _has_expired(self) -> bool:
        return self._expires_at is not None and time.monotonic() >= self._expires_at

    def _describe_failure(self) -> str:
        if isinstance(self._final_event, Failed):
            return f"{self._final_event.code}: {self._final_event.message}"
        if isinstance(self._final_event, Stopped):
            return "the trainer was stopped by another process"
        last_line = self._stderr.rpartition("\n")[2][:_MAX_STDERR_CHARS]
        return f"{self._exit_reason}: {last_line}" if last_line else self._exit_reason


def _describe(outcome: Outcome) -> str:
    """Return the new status of a job that has ended, or why it was released."""
    return str(outcome.keywords.get("status") or outcome.keywords["reason"])
