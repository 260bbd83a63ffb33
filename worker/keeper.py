"""The keeper: rings for what is queued, takes back what was left, and removes leftovers. Any number may run.

`python -m worker.keeper`. Each duty is done at its own interval, and a duty that fails is done again at the next.
"""

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from service import garbage, idempotency, leases, lifecycle, workers
from service.db.session import Database
from service.doorbell import QUEUES, Doorbell
from service.settings import Settings
from service.storage import Storage

_log = logging.getLogger(__name__)


@dataclass
class Duty:
    """Something to do every so often; `due` is by the monotonic clock."""

    every_seconds: float
    act: Callable[[], None]
    due: float = 0.0

    def do(self, now: float) -> None:
        """Do it; whatever goes wrong, the keeper lives."""
        self.due = now + self.every_seconds
        try:
            self.act()
        except Exception as error:  # noqa: BLE001 — the database may be away, the broker too: there is a next time
            sentence = str(error).partition("\n")[0]
            _log.warning("The keeper could not %s: %s", self.act.__name__.strip("_").replace("_", " "), sentence)


class Keeper:
    """Keeps until told to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database, pool_size=1)
        self._storage = Storage(settings.data_dir)
        self._doorbell = Doorbell(settings.broker_url)
        self._duties = [
            Duty(settings.reap_seconds, self._reap),
            Duty(settings.ring_seconds, self._ring),
            Duty(settings.worker_seen_seconds / 3, self._call_roll),
            Duty(settings.sweep_seconds, self._sweep),
        ]

    def keep(self, stop: threading.Event) -> None:
        """Do each duty when it is due, until `stop` is set."""
        while not stop.is_set():
            for duty in self._duties:
                if duty.due <= (now := time.monotonic()) and not stop.is_set():
                    duty.do(now)
            stop.wait(max(0.0, min(duty.due for duty in self._duties) - time.monotonic()))
        self._doorbell.close()
        self._database.close()

    def _ring(self) -> None:
        """Ring as often as jobs are queued and not yet rung for."""
        with self._database.reading() as session:
            pending = leases.count_pending(session)
        for queue, queued in pending.items():
            self._doorbell.fill(queue, queued)

    def _call_roll(self) -> None:
        """Ring for every worker there was, and one more, so that idle ones are seen, or are seen to be missing."""
        with self._database.reading() as session:
            there = Counter(worker.queue for worker in workers.list_recent(session, self._settings.worker_seen_seconds))
        for queue in QUEUES:
            self._doorbell.fill(queue, there[queue] + 1)

    def _reap(self) -> None:
        """Take back the jobs whose lease has run out, and wake those whose parent has ended."""
        with self._database.writing() as session:
            reaped = leases.reap(session, leases.RetryPolicy.of(self._settings))
            lifecycle.resolve_waiting(session)
        if reaped:
            _log.warning("Taken back, for their lease ran out: %s", ", ".join(reaped))
            self._ring()

    def _sweep(self) -> None:
        """Remove files that nothing points at, and rows that nobody needs."""
        with self._database.writing() as session:
            idempotency.delete_expired(session, self._settings.idempotency_hours)
            workers.delete_old(session)
        with self._database.reading() as session:
            live, known = garbage.live_paths(session), garbage.known_folders(session)
        removed = self._storage.sweep(live, known, self._settings.leftover_seconds)
        if removed:
            _log.info("Removed %d leftovers: %s", len(removed), ", ".join(removed[:20]))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Keeper(Settings()).keep(stop)


if __name__ == "__main__":
    main()
