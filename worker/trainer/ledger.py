"""The ledger of an attempt: what the trainer said, on its way to the database, and the lease that every entry renews.

While the database is away, entries wait here, in order, until the lease must have run out by our own clock. Once the
lease is lost, whether the database says so or that clock does, nothing more is written: `LeaseLost` is raised.
"""

import logging
import math
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import leases
from service.db.session import Database, is_unreachable
from service.event_handlers import BadEvent
from service.leases import Claim, LeaseLost, Signal
from service.settings import Settings
from ssl_core.events import Checkpoint, Event, Log, Progress

MOST_AT_ONCE = 2_000
MOST_WAITING = 10_000
_RETRY_SECONDS = 0.25
_log = logging.getLogger(__name__)


class Ledger:
    """One attempt's entries. `signal` is what the database last asked of the attempt."""

    def __init__(
        self,
        claim: Claim,
        attempt_path: str,
        database: Database,
        settings: Settings,
        seen: Callable[[Session], object],
    ) -> None:
        self.signal: Signal = "run"
        self._claim = claim
        self._attempt_path = attempt_path
        self._database = database
        self._settings = settings
        self._waiting: list[Event] = []
        self._batch = MOST_AT_ONCE
        now = time.monotonic()
        self._since = now  # when the oldest that waits came, or the last renewal was
        self._retry_at = now
        self._seen, self._seen_at = seen, now
        self._lease_end = now + settings.lease_seconds

    @property
    def full(self) -> bool:
        """Whether so much waits that the trainer had better wait too."""
        return len(self._waiting) >= MOST_WAITING

    def add(self, event: Event) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        if isinstance(event, Checkpoint):  # stored at once: an older one's file goes when the next is written
            self._since = -math.inf
        self._waiting.append(event)

    def sync(self) -> None:
        """Store what is due, or only renew the lease when that is due. Raises LeaseLost and BadEvent."""
        while self._due():
            self._store(self._waiting[: self._batch])

    def disown(self, checkpoint: str, why: Log) -> None:
        """Forget the checkpoint of that path, and say why. Raises LeaseLost."""
        self.add(why)
        claim, lease = self._claim, self._settings.lease_seconds
        try:
            with self._database.writing() as session:
                leases.delete_checkpoint(session, claim.job_id, claim.attempt, checkpoint, lease)
        except SQLAlchemyError as error:
            self._wait_for_database(error)  # then it is found damaged again by the next attempt, if there is one

    def close(self, verdict: Callable[[Session], object]) -> None:
        """Store everything, the last of it in one transaction with `verdict`. Raises LeaseLost and BadEvent."""
        while True:
            last = len(self._waiting) <= self._batch
            stored = self._store(self._waiting[: self._batch], verdict if last else None)
            if stored and last:
                return
            time.sleep(max(0.0, self._retry_at - time.monotonic()))

    def _due(self) -> bool:
        now = time.monotonic()
        if now < self._retry_at:
            return False
        if len(self._waiting) >= MOST_AT_ONCE:
            return True
        patience = self._settings.flush_seconds if self._waiting else self._settings.heartbeat_seconds
        return now - self._since >= patience

    def _store(self, batch: list[Event], verdict: Callable[[Session], object] | None = None) -> bool:
        """Store the batch and tell whether that succeeded. Raises LeaseLost and BadEvent."""
        started = time.monotonic()
        try:
            with self._database.writing() as session:
                self.signal = self._record_batch(session, batch)
                if seen := started - self._seen_at >= self._settings.heartbeat_seconds:
                    self._seen(session)
                if verdict is not None:
                    verdict(session)
        except LeaseLost:
            raise
        except Exception as error:
            if is_unreachable(error):
                self._wait_for_database(error)
            elif batch:
                self._narrow_down(error)
            else:
                raise
            return False
        del self._waiting[: len(batch)]
        self._seen_at = started if seen else self._seen_at
        self._since, self._lease_end = time.monotonic(), started + self._settings.lease_seconds
        self._batch = min(MOST_AT_ONCE, self._batch * 2)
        return True

    def _record_batch(self, session: Session, batch: list[Event]) -> Signal:
        claim, lease = self._claim, self._settings.lease_seconds
        return leases.record_events(session, claim.job_id, claim.attempt, lease, batch, self._attempt_path)

    def _wait_for_database(self, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._lease_end:
            raise LeaseLost(f"the database was away for longer than the lease: {error}") from error
        self._retry_at = min(now + _RETRY_SECONDS, self._lease_end)
        sentence = str(error).partition("\n")[0]
        _log.warning("The database is away, %d events wait: %s", len(self._waiting), sentence)

    def _narrow_down(self, error: Exception) -> None:
        """Find the event that cannot be stored by halving. Raises BadEvent unless the run can do without it."""
        if self._batch > 1 and len(self._waiting) > 1:
            self._batch = min(self._batch, len(self._waiting)) // 2
            return
        bad = self._waiting.pop(0)
        sentence = f"A {type(bad).__name__.lower()} event of the trainer cannot be stored: {error}"
        if not isinstance(bad, Log | Progress):
            self._waiting.clear()
            raise BadEvent(sentence) from error
        _log.warning(sentence)
        if not isinstance(bad, Log) or bad.code != "bad_event":
            self._waiting.insert(0, Log("warning", sentence, "bad_event"))
