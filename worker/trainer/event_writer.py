"""An event writer: buffers a trainer's events, writes them to the database in batches, and renews the lease.

While the database is unreachable, events stay in the buffer, in order, until the lease has expired by the local clock.
Once the lease is lost, by the database or by that clock, nothing more is written: `LeaseLost` is raised.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import leases
from service.db.session import Database, is_unreachable
from service.event_handlers import BadEvent, count_kept_checkpoints
from service.leases import Claim, LeaseLost, Signal
from service.settings import Settings
from ssl_core.events import Checkpoint, Event, Log, Progress, Shard
from ssl_core.serialization import checkpoint_files

MAX_BATCH = 2_000  # events in one transaction
MAX_PENDING = 10_000
_RETRY_SECONDS = 0.25
_log = logging.getLogger(__name__)


class EventWriter:
    """Writes one attempt's events. `signal` is the last request that the database holds for the attempt."""

    def __init__(
        self,
        claim: Claim,
        folder: Path,
        attempt_path: str,
        database: Database,
        settings: Settings,
        mark_seen: Callable[[Session], object],
    ) -> None:
        self.signal: Signal = "run"
        self._claim = claim
        self._folder = folder
        self._attempt_path = attempt_path
        self._database = database
        self._settings = settings
        self._pending: list[Event] = []
        self._batch = MAX_BATCH
        now = time.monotonic()
        self._since = now  # arrival of the oldest pending event, or the last renewal
        self._retry_at = now
        self._mark_seen, self._seen_at = mark_seen, now
        self._lease_end = now + settings.lease_seconds

    @property
    def is_full(self) -> bool:
        """Whether the buffer is full, so that the trainer's pipe should not be read."""
        return len(self._pending) >= MAX_PENDING

    def add(self, event: Event) -> None:
        if not self._pending:
            self._since = time.monotonic()
        if isinstance(event, Checkpoint | Shard):  # written at once: the next attempt goes on from it
            self._since = -math.inf
        self._pending.append(event)

    def flush(self) -> None:
        """Write the events that are due, or only renew the lease when that is due. Raises LeaseLost and BadEvent."""
        while self._is_due():
            self._write(self._pending[: self._batch])

    def drop_checkpoint(self, path: str, reason: Log) -> None:
        """Delete the row of the checkpoint at `path` and log the reason. Raises LeaseLost."""
        self.add(reason)
        claim, lease = self._claim, self._settings.lease_seconds
        try:
            with self._database.writing() as session:
                leases.delete_checkpoint(session, claim.job_id, claim.attempt, path, lease)
        except SQLAlchemyError as error:
            self._wait_for_database(error)  # the next attempt finds it damaged again

    def close(self, write_outcome: Callable[[Session], object]) -> None:
        """Write all events, the last batch in one transaction with the outcome. Raises LeaseLost and BadEvent."""
        while True:
            last = len(self._pending) <= self._batch
            written = self._write(self._pending[: self._batch], write_outcome if last else None)
            if written and last:
                return
            time.sleep(max(0.0, self._retry_at - time.monotonic()))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._retry_at:
            return False
        if len(self._pending) >= MAX_BATCH:
            return True
        interval = self._settings.flush_seconds if self._pending else self._settings.heartbeat_seconds
        return now - self._since >= interval

    def _write(self, batch: list[Event], write_outcome: Callable[[Session], object] | None = None) -> bool:
        """Write the batch and return whether that succeeded. Raises LeaseLost and BadEvent."""
        started = time.monotonic()
        try:
            with self._database.writing() as session:
                self.signal = self._record(session, batch)
                if seen := started - self._seen_at >= self._settings.heartbeat_seconds:
                    self._mark_seen(session)
                if write_outcome is not None:
                    write_outcome(session)
        except LeaseLost:
            raise
        except Exception as error:
            if is_unreachable(error):
                self._wait_for_database(error)
            elif batch:
                self._bisect(error)
            else:
                raise
            return False
        del self._pending[: len(batch)]
        self._delete_old_checkpoints(batch)
        self._seen_at = started if seen else self._seen_at
        self._since, self._lease_end = time.monotonic(), started + self._settings.lease_seconds
        self._batch = min(MAX_BATCH, self._batch * 2)
        return True

    def _delete_old_checkpoints(self, written: list[Event]) -> None:
        """Delete the files whose rows are gone since newer ones were written; the trainer deletes none."""
        saved = [event for event in written if isinstance(event, Checkpoint)]
        if saved:
            folder = (self._folder / saved[-1].path).parent
            checkpoint_files.prune(folder, count_kept_checkpoints(self._claim.config), saved[-1].step)

    def _record(self, session: Session, batch: list[Event]) -> Signal:
        claim, lease = self._claim, self._settings.lease_seconds
        return leases.record_events(session, claim.job_id, claim.attempt, lease, batch, self._attempt_path)

    def _wait_for_database(self, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._lease_end:
            raise LeaseLost(f"the database was unreachable for longer than the lease: {error}") from error
        self._retry_at = min(now + _RETRY_SECONDS, self._lease_end)
        sentence = str(error).partition("\n")[0]
        _log.warning("The database is unreachable, %d events are pending: %s", len(self._pending), sentence)

    def _bisect(self, error: Exception) -> None:
        """Isolate the event that cannot be stored; drop a Log or a Progress. Raises BadEvent for another event."""
        if self._batch > 1 and len(self._pending) > 1:
            self._batch = min(self._batch, len(self._pending)) // 2
            return
        bad = self._pending.pop(0)
        sentence = f"A {type(bad).__name__.lower()} event of the trainer cannot be stored: {error}"
        if not isinstance(bad, Log | Progress):
            self._pending.clear()
            raise BadEvent(sentence) from error
        _log.warning(sentence)
        if not isinstance(bad, Log) or bad.code != "bad_event":
            self._pending.insert(0, Log("warning", sentence, "bad_event"))
