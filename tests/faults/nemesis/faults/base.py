"""The base class of faults: a precondition, an injection, an effect that is observed, and a healing."""

import os
import random
import signal
import time
from pathlib import Path

from service.db.statuses import TERMINAL, JobStatus
from tests.faults.fleet import kill
from tests.faults.nemesis.experiment import Experiment, Held, Slot, pick
from tests.processes import alive


class Fault:
    """One fault. It locks what it touches, by name, so that faults that overlap in time have targets of their own."""

    effect_seconds = 15.0  # after them it is healed, and tried again
    heal_seconds = 60.0  # after them the healing has failed
    holds_jobs = False  # jobs wait before their last steps until it is healed: the effect takes longer than a short job

    def __init__(self, experiment: Experiment, rng: random.Random) -> None:
        self.experiment, self.rng = experiment, rng
        self.target = ""
        self.locks: list[str] = []
        self.started = 0.0

    def inject(self) -> bool:
        """Inject the fault if its precondition holds, and return whether it did."""
        raise NotImplementedError

    def effect(self) -> str | None:
        """Return a sentence about the observed effect, None before it is seen. Raises nothing that a retry mends."""
        raise NotImplementedError

    def is_void(self) -> bool:
        """Whether the effect can no longer come, because what the fault was for has ended just before it."""
        return False

    def is_due(self) -> bool:
        """Whether the fault is to be healed now. Only after its effect."""
        return True

    def heal(self) -> None:
        """End the fault; also called when no effect was seen."""

    def is_healed(self) -> bool:
        """Whether the healing is observed."""
        return True

    def lock(self, *names: str) -> bool:
        """Lock the names; return False when a fault has locked one of them."""
        if self.experiment.locked & set(names):
            return False
        self.locks += names
        self.experiment.locked |= set(names)
        return True

    def release(self) -> None:
        """Unlock what `lock` has locked."""
        self.experiment.locked -= set(self.locks)
        self.locks = []

    def lock_busy_worker(self) -> tuple[Slot, Held] | None:
        """Lock a worker that no fault touches and that runs a job; return it with the job."""
        running = [(slot, self.experiment.job_of(slot)) for slot in self.experiment.workers]
        busy = [(slot, job) for slot, job in running if job is not None and slot.name not in self.experiment.locked]
        if not busy:
            return None
        slot, job = self.rng.choice(busy)
        self.lock(slot.name)
        self.target = f"{slot.name}, attempt {job.attempt} at {job.id}"
        return slot, job

    def lock_one(self, slots: list[Slot]) -> Slot | None:
        """Lock one of the slots that no fault touches."""
        slot = pick(self.rng, [slot for slot in slots if slot.name not in self.experiment.locked])
        if slot is not None:
            self.lock(slot.name)
            self.target = slot.name
        return slot

    def elapsed(self) -> float:
        """Return the seconds since the injection."""
        return time.monotonic() - self.started


class OfAttempt(Fault):
    """A fault of one attempt at a job."""

    job: Held

    def is_void(self) -> bool:
        return self.experiment.workload.job(self.job.id).status in TERMINAL


class EndedAttempt(OfAttempt):
    """A fault that ends an attempt at a job: its effect is the job's return to the queue."""

    def effect(self) -> str | None:
        message = self.experiment.release_message(self.job.id, self.job.attempt)
        return None if message is None else f"attempt {self.job.attempt} at {self.job.id} was ended: {message}"


class LostLease(OfAttempt):
    """A fault during which the lease of an attempt expires: its effect is the return to the queue."""

    def loss(self) -> str | None:
        """Return a sentence once the attempt has lost its lease."""
        job = self.experiment.workload.job(self.job.id)
        if job.attempt == self.job.attempt and job.status != JobStatus.QUEUED:
            return None
        return f"attempt {self.job.attempt} at {job.id} has lost its lease; the job is {job.status}, {job.attempt}"


def kill_living(pid: int | None) -> bool:
    """Kill the process if it is alive, and return whether it was."""
    if pid is None or not alive(pid):
        return False
    kill(pid)
    return True


def send_signal(number: signal.Signals, pids: list[int]) -> None:
    """Send the signal to those of the processes that are alive."""
    for pid in pids:
        if alive(pid):
            os.kill(pid, number)


def log_of(experiment: Experiment, slot: Slot) -> Path:
    """Return the path of the slot's log."""
    return experiment.fleet.folder / f"{slot.name}.log"


def log_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def log_since(path: Path, size: int) -> str:
    """Return what was appended to a log since it had that size."""
    with path.open("rb") as file:
        file.seek(size)
        return file.read().decode("utf-8", "replace")
