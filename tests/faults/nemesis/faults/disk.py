"""Faults of the disk: the writes of a trainer, or of the worker that starts one, fail with ENOSPC or EIO."""

import os
import random

from tests.faults.fleet import trainer_of
from tests.faults.nemesis.control import ControlPage, Role
from tests.faults.nemesis.experiment import Experiment
from tests.faults.nemesis.faults.base import Fault, kill_living


class _FailWrites(Fault):
    role: Role
    page: ControlPage | None = None
    before = 0

    def __init__(self, experiment: Experiment, rng: random.Random, *, number: int) -> None:
        """number: an errno."""
        super().__init__(experiment, rng)
        self.number, self.writes = number, rng.randint(1, 3)

    def arm(self, page: ControlPage | None) -> None:
        """Let the next writes fail."""
        assert page is not None
        self.page, self.before = page, page.failures(self.role)
        page.fail_writes(self.role, self.number, self.writes)

    def effect(self) -> str | None:
        assert self.page is not None
        failed = self.page.failures(self.role) - self.before
        return f"{failed} writes failed: {os.strerror(self.number)}" if failed else None

    def heal(self) -> None:
        if self.page is not None:
            self.page.fail_writes(self.role, 0, 0)


class FailTrainerWrites(_FailWrites):
    role = "trainer"

    def inject(self) -> bool:
        found = self.lock_busy_worker()
        if found is None or found[1].is_real:  # only the toy trainer has the page
            return False
        self.arm(found[0].page)
        return True


class FailWorkerWrites(_FailWrites):
    """The worker writes the config of an attempt, so its trainer is killed, and its next attempt fails."""

    role = "worker"

    def inject(self) -> bool:
        found = self.lock_busy_worker()
        if found is None:
            return False
        trainer = trainer_of(found[0].process)
        self.arm(found[0].page)
        return trainer is not None and kill_living(trainer.pid)
