"""The Celery task of a worker: claim and run queued jobs until none is left."""

import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import leases, workers
from service.db.session import Database, is_unreachable
from service.leases import Claim
from service.logs import context
from service.settings import Settings
from service.storage import Storage
from worker.trainer.supervisor import supervise

_log = logging.getLogger(__name__)


class JobRunner:
    """Runs jobs in one worker. The database is opened at the first run: a connection must not cross a fork."""

    def __init__(
        self, name: str, settings: Settings, is_stopping: Callable[[], bool], is_draining: Callable[[], bool]
    ) -> None:
        """is_stopping: whether the present job is to stop. is_draining: whether it is the last one."""
        self._name = name
        self._is_draining = is_draining
        self._settings = settings
        self._is_stopping = is_stopping
        self._opened: Database | None = None

    def run_queued_jobs(self, queue: str) -> None:
        """Run the queue's jobs in turn (`service.db.turns`), until none is queued or the worker stops or drains."""
        try:
            while not self._is_ending() and (claim := self._claim(queue)) is not None:
                with context.bound(job=claim.job_id, attempt=claim.attempt, owner=claim.tenant_id):
                    _log.info("Attempt %d at %s (%s)", claim.attempt, claim.job_id, claim.kind)
                    self._supervise(claim, queue)
        except SQLAlchemyError as error:
            if not is_unreachable(error):
                raise
            _log.warning("The database is unreachable; the keeper will ring again: %s", str(error).partition("\n")[0])

    def _is_ending(self) -> bool:
        return self._is_stopping() or self._is_draining()

    @property
    def _database(self) -> Database:
        if self._opened is None:
            # A worker frozen within a write must not hold its row for longer than its lease.
            frozen_seconds = self._settings.lease_seconds
            self._opened = Database(self._settings.database, pool_size=1, frozen_seconds=frozen_seconds)
        return self._opened

    def _claim(self, queue: str) -> Claim | None:
        with self._database.writing() as session:
            workers.record_heartbeat(session, self._name, queue)
            settings = self._settings
            return leases.claim(session, queue, self._name, settings.lease_seconds, settings.quota_running_jobs)

    def _supervise(self, claim: Claim, queue: str) -> None:
        def mark_seen(session: Session) -> None:
            workers.record_heartbeat(session, self._name, queue)

        storage = Storage(self._settings.data_dir)
        supervise(claim, self._database, storage, self._settings, self._is_stopping, mark_seen)
