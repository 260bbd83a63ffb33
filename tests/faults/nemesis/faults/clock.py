"""A wrong clock: a worker and its trainer read a time that is an hour off, and the database's clock decides."""

import random

from tests.faults.nemesis.experiment import Experiment
from tests.faults.nemesis.faults.base import OfAttempt

SECONDS = 1.0  # for which the clock is wrong, at least: several renewals of the lease


class ShiftClock(OfAttempt):
    holds_jobs = True

    def __init__(self, experiment: Experiment, rng: random.Random, *, seconds: float) -> None:
        super().__init__(experiment, rng)
        self.seconds, self.page = seconds, None

    def inject(self) -> bool:
        found = self.lock_busy_worker()
        if found is None or found[1].is_real:
            return False
        slot, self.job = found
        assert slot.page is not None
        self.page, self.pid = slot.page, slot.pid
        self.before = self._reads()
        self.page.clock_offset_seconds = self.seconds
        return True

    def is_void(self) -> bool:
        return super().is_void() or self.experiment.workload.job(self.job.id).attempt != self.job.attempt

    def effect(self) -> str | None:
        """The wrong clock was read, and the lease was renewed by the database's clock."""
        reads, job = self._reads() - self.before, self.experiment.workload.job(self.job.id)
        if not reads or self.elapsed() < SECONDS or job.lease_until is None:
            return None
        if self.job.lease_until is None or job.lease_until <= self.job.lease_until:
            return None
        left = job.lease_until - self.experiment.workload.clock()
        limit = self.experiment.fleet.settings.lease_seconds
        return f"{reads} reads of the clock; the lease has {left:.1f} of {limit:g} s left" if left <= limit else None

    def heal(self) -> None:
        if self.page is not None:
            self.page.clock_offset_seconds = 0.0

    def _reads(self) -> int:
        assert self.page is not None
        return self.page.shifted_reads("worker") + self.page.shifted_reads("trainer")
