"""A worker that is frozen past its lease: another takes its job, and once it continues it has to leave it alone."""

import random
import signal

import psutil

from tests.faults.fleet import child_of, trainer_of
from tests.faults.nemesis.experiment import Experiment
from tests.faults.nemesis.faults.base import LostLease, send_signal
from tests.processes import alive


class FreezeWorker(LostLease):
    """SIGSTOP of the Celery child, alone or with the worker and the trainer."""

    def __init__(self, experiment: Experiment, rng: random.Random, *, with_trainer: bool) -> None:
        super().__init__(experiment, rng)
        self.with_trainer = with_trainer
        # On SQLite, a process that is stopped within a transaction blocks the whole service.
        self.effect_seconds = 3 * experiment.fleet.settings.lease_seconds
        self.pids: list[int] = []

    def inject(self) -> bool:
        if not self.lock("database"):
            return False
        found = self.lock_busy_worker()
        if found is None:
            return False
        slot, self.job = found
        self.trainer, child = trainer_of(slot.process), child_of(slot.process)
        if self.trainer is None or child is None:
            return False
        self.pids = [self.trainer.pid, child.pid, slot.pid] if self.with_trainer else [child.pid]
        send_signal(signal.SIGSTOP, self.pids)
        if not self.experiment.workload.is_writable():
            self.heal()
            return False
        self.experiment.locked.discard("database")
        self.locks.remove("database")
        return True

    def effect(self) -> str | None:
        return self.loss() if all(psutil.Process(pid).status() == "stopped" for pid in self.pids) else None

    def heal(self) -> None:
        send_signal(signal.SIGCONT, self.pids)

    def is_healed(self) -> bool:
        """Whether the trainer of the lost attempt has been killed."""
        return not alive(self.trainer.pid)
