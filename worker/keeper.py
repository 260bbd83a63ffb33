"""The keeper: periodic tasks that ring for queued jobs, requeue jobs with expired leases, and remove unused files.

`python -m worker.keeper`; any number may run. A task that fails runs again after its interval.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from service import audit, garbage, idempotency, leases, lifecycle, logs, workers
from service.db import revisions
from service.db.session import Database
from service.deletion import points, retention
from service.doorbell import QUEUES, Doorbell
from service.settings import Settings
from service.storage import UPLOADS, Storage
from service.sweeps import progress
from worker import sweeps

_STOP_SECONDS = 10  # for threads in progress
_PAUSE_SECONDS = 0.05  # between two parts of a long deletion, for other writers
_log = logging.getLogger("worker.keeper")  # also when it is __main__


@dataclass
class PeriodicTask:
    """A function to call at an interval; `due_at` is a time of the monotonic clock."""

    interval_seconds: float
    call: Callable[[], None]
    due_at: float = 0.0

    def run(self, now: float) -> None:
        """Call the function and log what it raises."""
        self.due_at = now + self.interval_seconds
        try:
            self.call()
        except Exception as error:  # noqa: BLE001 — database or broker may be unreachable: the next call tries again
            sentence = str(error).partition("\n")[0]
            _log.warning("The keeper could not %s: %s", self.call.__name__.strip("_").replace("_", " "), sentence)


class Keeper:
    """Runs the periodic tasks in one thread, and in others those that may take long: they remove files, or bring sweeps
    forward."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database, pool_size=1)
        self._storage = Storage(settings.data_dir)
        self._doorbell = Doorbell(settings.broker_url)
        self._tasks = [
            PeriodicTask(settings.reap_seconds, self._reap),
            PeriodicTask(settings.ring_seconds, self._ring),
            PeriodicTask(settings.ring_seconds, self._start_advancing_sweeps),
            PeriodicTask(settings.worker_seen_seconds / 3, self._ring_workers),
            PeriodicTask(settings.worker_seen_seconds / 3, self._record_heartbeat),
            PeriodicTask(settings.sweep_seconds, self._start_sweep),
            PeriodicTask(settings.cleanup_seconds, self._start_cleanup),
            PeriodicTask(settings.cleanup_seconds, self._start_deletion_of_points),
        ]
        self._threads: dict[str, threading.Thread] = {}
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Run each task when it is due, until `stop` is set."""
        self._stop = stop
        while not stop.is_set():
            for task in self._tasks:
                if task.due_at <= (now := time.monotonic()) and not stop.is_set():
                    task.run(now)
                    self._beat()
            stop.wait(max(0.0, min(task.due_at for task in self._tasks) - time.monotonic()))
        for thread in self._threads.values():
            thread.join(_STOP_SECONDS)
        self._doorbell.close()
        self._database.close()

    def _ring(self) -> None:
        """Ring once for each queued job that has no ring in its queue."""
        with self._database.reading() as session:
            pending = leases.count_pending(session)
        for queue, queued in pending.items():
            self._doorbell.fill(queue, queued)

    def _ring_workers(self) -> None:
        """Ring for every recent worker, and once more, so that idle workers mark themselves as seen."""
        with self._database.reading() as session:
            workers_by_queue = Counter(
                worker.queue for worker in workers.list_recent(session, self._settings.worker_seen_seconds)
            )
        for queue in QUEUES:
            self._doorbell.fill(queue, workers_by_queue[queue] + 1)

    def _reap(self) -> None:
        """Requeue the jobs whose lease has expired, and wake those whose parent has ended."""
        with self._database.writing() as session:
            reaped = leases.reap(session, leases.RetryPolicy.of(self._settings))
            lifecycle.resolve_waiting(session)
        for job_id in reaped:
            _log.warning("The lease of the job has expired; it is queued again or has failed", extra={"job": job_id})
        if reaped:
            self._ring()

    def _record_heartbeat(self) -> None:
        with self._database.writing() as session:
            workers.record_heartbeat(session, f"keeper@{socket.gethostname()}:{os.getpid()}", workers.KEEPER)

    def _beat(self) -> None:
        if self._settings.beat_file is not None:
            with contextlib.suppress(OSError):
                self._settings.beat_file.write_text(str(time.monotonic()))

    def _start_advancing_sweeps(self) -> None:
        self._run_in_thread(self._advance_sweeps)

    def _advance_sweeps(self) -> None:
        """Bring every sweep forward: start and stop trials, each sweep in a transaction of its own."""
        with self._database.reading() as session:
            due = progress.list_due(session)
        for sweep_id in due:
            try:
                with self._database.writing() as session:
                    has_started = progress.advance(session, sweep_id, self._settings, sweeps.prune)
                if has_started:
                    self._ring()
            except Exception:  # noqa: BLE001 — the others go on
                _log.exception("The sweep %s could not be brought forward", sweep_id)

    def _start_sweep(self) -> None:
        self._run_in_thread(self._sweep)

    def _start_cleanup(self) -> None:
        self._run_in_thread(self._clean_up)

    def _start_deletion_of_points(self) -> None:
        self._run_in_thread(self._delete_points)

    def _run_in_thread(self, call: Callable[[], None]) -> None:
        """Call the function in its thread, unless the last call still runs."""
        last = self._threads.get(call.__name__)
        if last is None or not last.is_alive():
            thread = threading.Thread(target=PeriodicTask(0, call).run, args=(0,), name=call.__name__, daemon=True)
            self._threads[call.__name__] = thread
            thread.start()

    def _sweep(self) -> None:
        """Remove files without a reference, and expired rows."""
        self._delete_expired_results()
        with self._database.writing() as session:
            idempotency.delete_expired(session, self._settings.idempotency_hours)
            workers.delete_old(session)
            audit.delete_old(session, self._settings.audit_days)
        before = time.time() - self._settings.leftover_seconds
        with self._storage.without_sweep():
            with self._database.reading() as session:
                live, known = garbage.live_paths(session), garbage.known_folders(session)
            _log_removed(self._storage.sweep(live, known, before))

    def _delete_expired_results(self) -> None:
        """Delete what the settings of retention keep no longer, in short transactions."""
        count, has_more = 0, True
        while has_more and not self._stop.is_set():
            with self._database.writing() as session:
                has_more = (found := retention.delete_expired(session, self._settings)) > 0
            count += found
            self._stop.wait(_PAUSE_SECONDS if has_more else 0)
        if count:
            _log.info("Deleted what %d jobs and uploads had left, by the settings of retention", count)

    def _clean_up(self) -> None:
        """Remove the files of deleted and failed datasets, of refused and ingested uploads, and what was deleted of
        jobs."""
        before = time.time() - self._settings.cleanup_age_seconds
        with self._storage.without_sweep(wait=False) as is_held:
            if not is_held:  # a backup takes its snapshot, or a sweep runs
                return
            self._clean_up_jobs(before)
            with self._database.reading() as session:
                live, known = garbage.live_uploads(session), garbage.known_folders(session, with_jobs=False)
            _log_removed(self._storage.sweep(live, known, before, UPLOADS))

    def _clean_up_jobs(self, before: float) -> None:
        """Remove the files of jobs whose rows were deleted. A job that has not ended is looked at again."""
        with self._database.reading() as session:
            freed = garbage.list_freed(session)
        for job in freed:
            removed, is_clean = self._storage.sweep_job(job.id, job.live, before)
            _log_removed(removed)
            if is_clean and job.has_ended:
                with self._database.writing() as session:
                    garbage.mark_cleaned(session, job)

    def _delete_points(self) -> None:
        """Delete the points of deleted jobs, and of those that were retried from the start, in short transactions."""
        has_more = True
        while has_more and not self._stop.is_set():
            with self._database.writing() as session:
                has_more = points.delete_part(session)
            self._stop.wait(_PAUSE_SECONDS if has_more else 0)


def _log_removed(removed: list[str]) -> None:
    if removed:
        _log.info("Removed %d unused files: %s", len(removed), ", ".join(removed[:20]))


def main() -> None:
    settings = logs.start()
    revisions.require_newest(settings.database)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _log.info("The keeper starts")
    Keeper(settings).run(stop)
    _log.info("The keeper has stopped")


if __name__ == "__main__":
    main()
