"""Orderly ends: SIGTERM of a process, and the cancellation of a job."""

import signal

from service.db.statuses import JobStatus
from tests.faults.fleet import child_of, trainer_of
from tests.faults.nemesis.experiment import Slot
from tests.faults.nemesis.faults.base import EndedAttempt, Fault, OfAttempt, send_signal
from tests.processes import alive


class StopWorker(EndedAttempt):
    """The job returns to the queue with a checkpoint, and the attempt does not count."""

    effect_seconds = 30.0

    def inject(self) -> bool:
        found = self.lock_busy_worker()
        if found is None:
            return False
        self.slot, self.job = found
        self.slot.process.terminate()
        return True

    def effect(self) -> str | None:
        released, code = super().effect(), self.slot.process.poll()
        if released is None or code is None:
            return None
        return f"{released} The worker has ended with {code}" if "worker was stopped" in released else None

    def heal(self) -> None:
        if self.slot.process.poll() is None:
            self.slot.process.kill()
        self.experiment.replace(self.slot)


class StopChild(EndedAttempt):
    """A Celery child that is signalled alone is replaced by Celery."""

    def inject(self) -> bool:
        found = self.lock_busy_worker()
        if found is None:
            return False
        self.slot, self.job = found
        self.child = child_of(self.slot.process)
        if self.child is None:
            return False
        send_signal(signal.SIGTERM, [self.child.pid])
        return True

    def is_healed(self) -> bool:
        return not alive(self.child.pid) and child_of(self.slot.process) is not None


class _Stop(Fault):
    """SIGTERM of a process, which ends with the status 0 or by the signal; another takes its place."""

    slot: Slot

    def effect(self) -> str | None:
        code = self.slot.process.poll()
        return f"it has ended with {code}" if code in (0, -signal.SIGTERM) else None

    def heal(self) -> None:
        if self.slot.process.poll() is None:
            self.slot.process.kill()
        self.experiment.replace(self.slot)


class StopKeeper(_Stop):
    def inject(self) -> bool:
        keeper = self.lock_one(self.experiment.keepers)
        if keeper is None:
            return False
        self.slot = keeper
        keeper.process.terminate()
        return True


class StopApi(_Stop):
    def is_healed(self) -> bool:
        return self.experiment.fleet.api_listens()

    def inject(self) -> bool:
        if not self.lock(self.experiment.api.name):
            return False
        self.slot = self.experiment.api
        self.target = self.slot.name
        self.slot.process.terminate()
        return True


class CancelJob(OfAttempt):
    """A running job is cancelled over HTTP: its trainer ends, and so does the job."""

    def inject(self) -> bool:
        if "api" in self.experiment.locked or "database" in self.experiment.locked:
            return False
        found = self.lock_busy_worker()
        if found is None:
            return False
        slot, self.job = found
        self.trainer = trainer_of(slot.process)
        return self.trainer is not None and self.experiment.cancel(self.job.id)

    def is_void(self) -> bool:
        return self.experiment.workload.job(self.job.id).status in (JobStatus.SUCCEEDED, JobStatus.FAILED)

    def effect(self) -> str | None:
        job = self.experiment.workload.job(self.job.id)
        if job.status != JobStatus.CANCELLED or alive(self.trainer.pid):
            return None
        return f"{job.id} was cancelled: {job.status_detail}"
