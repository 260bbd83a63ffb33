"""Requests about a running job: it is paused and resumed, or cancelled and retried, and goes on from its checkpoint."""

from sqlalchemy import select

from service.db.models import Job
from service.db.statuses import TERMINAL, JobStatus
from tests.faults.fleet import trainer_of
from tests.faults.nemesis.faults.base import OfAttempt
from tests.faults.nemesis.faults.stop import CancelJob
from tests.processes import alive

_STOPPED = (JobStatus.PAUSING, JobStatus.PAUSED)


class PauseJob(OfAttempt):
    """The trainer of a running job ends, and another attempt goes on once it is resumed."""

    effect_seconds = 30.0

    def inject(self) -> bool:
        if {"api", "database"} & self.experiment.locked:
            return False
        found = self.lock_busy_worker()
        if found is None:
            return False
        slot, self.job = found
        self.trainer = trainer_of(slot.process)
        # Without a response it may be paused, and has to be resumed.
        return self.trainer is not None and self.experiment.steer(self.job.id, "pause") in (200, None)

    def effect(self) -> str | None:
        job = self.experiment.workload.job(self.job.id)
        if job.status != JobStatus.PAUSED or alive(self.trainer.pid):
            return None
        return f"{job.id} was paused after attempt {job.attempt}"

    def heal(self) -> None:
        self.experiment.steer(self.job.id, "resume")

    def is_healed(self) -> bool:
        if self.experiment.workload.job(self.job.id).status not in _STOPPED:
            return True
        self.heal()
        return False


class RetryJob(CancelJob):
    """A job that was cancelled is retried, and so are those that have failed because they wait for its model."""

    def heal(self) -> None:
        self._retry_ended()

    def is_healed(self) -> bool:
        return not self._retry_ended()

    def _retry_ended(self) -> bool:
        """Retry the job and its descendants, as far as they have not succeeded; return whether there was any."""
        database, found, ended = self.experiment.workload.database, [self.job.id], False
        while found:
            job_id = found.pop()
            job = self.experiment.workload.job(job_id)
            if job.status in TERMINAL and job.status != JobStatus.SUCCEEDED:
                ended = True
                if not self.experiment.retry(job_id):
                    continue
            with database.reading() as session:
                found += session.scalars(select(Job.id).where(Job.parent_id == job_id)).all()
        return ended
