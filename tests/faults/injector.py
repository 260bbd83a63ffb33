"""A fault injector: kills and suspends processes of a fleet. Each fault returns whether it happened."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from service.db.statuses import HELD
from tests.faults.experiment import ChaosExperiment
from tests.faults.fleet import child_of, kill, trainer_of
from tests.processes import alive

MAX_WAIT_SECONDS = 40
SHARES = {
    "trainer": 26,
    "celery child": 18,
    "celery worker": 16,
    "keeper": 12,
    "broker, data kept": 6,
    "broker, data lost": 6,
    "worker suspended": 10,
    "api in POST /jobs": 6,
}


def plan_faults(faults: int, rng: random.Random) -> list[str]:
    """Return kinds of fault in random order, in the proportions of SHARES, each kind at least once."""
    kinds = list(SHARES)
    kinds += rng.choices(list(SHARES), list(SHARES.values()), k=max(0, faults - len(kinds)))
    rng.shuffle(kinds)
    return kinds[:faults]


@dataclass
class SuspendedWorker:
    """A worker stopped by SIGSTOP with a job, to be resumed once another worker has that job.

    On SQLite, one stopped within a transaction blocks the whole service, so it is resumed at `resume_at` at the latest.
    """

    pids: list[int]
    worker: subprocess.Popen
    job: str
    attempt: int
    resume_at: float


@dataclass
class FaultInjector:
    """Injects the faults of a plan into an experiment. `missed` are those that did not happen in time."""

    experiment: ChaosExperiment
    rng: random.Random
    gap_seconds: float = 0.5
    happened: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    suspended: list[SuspendedWorker] = field(default_factory=list)
    answer_seconds: float = 0.02  # estimated time of the API between reading a request and its response

    def inject_all(self, kinds: Sequence[str]) -> None:
        """Inject the faults of a plan in order."""
        for number, kind in enumerate(kinds):
            requests = kinds[number:].count("api in POST /jobs")  # each needs a job that is not submitted yet
            self.experiment.reserved_jobs = min(2 * requests, self.experiment.jobs - 1)
            self.inject(kind, number / len(kinds))

    def inject(self, kind: str, share: float) -> None:
        """Try until the fault has happened or MAX_WAIT_SECONDS are over; `share` of the plan is done."""
        actions: dict[str, Callable[[], bool]] = {
            "trainer": self._kill_trainer,
            "celery child": self._kill_child,
            "celery worker": self._kill_worker,
            "keeper": self._kill_keeper,
            "broker, data kept": lambda: self._kill_broker("kept"),
            "broker, data lost": lambda: self._kill_broker("lost"),
            "worker suspended": self._suspend_worker,
            "api in POST /jobs": self._kill_api,
        }
        start = time.monotonic() + self.rng.uniform(0, 2 * self.gap_seconds)
        while (now := time.monotonic()) < start + MAX_WAIT_SECONDS:
            self.experiment.keep_busy(share)
            self.resume_due()
            if now >= start and actions[kind]():
                self.happened.append(kind)
                return
            time.sleep(self.rng.random() * 0.1)
        self.missed.append(kind)

    def resume_due(self) -> None:
        """Resume the suspended workers that have lost their job, and those past their `resume_at`."""
        for entry in list(self.suspended):
            job = self.experiment.workload.job(entry.job)
            is_lost = job.attempt > entry.attempt or job.status not in HELD
            if is_lost or time.monotonic() > entry.resume_at:
                for pid in entry.pids:
                    if alive(pid):
                        os.kill(pid, signal.SIGCONT)
                self.suspended.remove(entry)

    def _busy_worker(self) -> subprocess.Popen | None:
        stopped = [entry.worker for entry in self.suspended]
        running = [worker for worker in self.experiment.workers if worker not in stopped]
        busy = [worker for worker in running if self.experiment.job_of(worker) is not None]
        return self.rng.choice(busy) if busy else None

    def _kill_trainer(self) -> bool:
        worker = self._busy_worker()
        return worker is not None and _kill_if_alive(trainer_of(worker))

    def _kill_child(self) -> bool:
        worker = self._busy_worker()
        return worker is not None and _kill_if_alive(child_of(worker))

    def _kill_worker(self) -> bool:
        worker = self._busy_worker()
        if worker is None or not _kill_if_alive(psutil.Process(worker.pid)):
            return False
        self.experiment.replace(worker)
        return True

    def _kill_keeper(self) -> bool:
        if not self.experiment.unfinished:
            return False
        keeper = self.rng.choice(self.experiment.keepers)
        if not _kill_if_alive(psutil.Process(keeper.pid)):
            return False
        self.experiment.replace(keeper)
        return True

    def _kill_broker(self, data: str) -> bool:
        if not self.experiment.unfinished:
            return False
        self.experiment.fleet.broker.kill(data)
        time.sleep(self.rng.random() * 0.5)
        self.experiment.fleet.broker.start()
        return True

    def _suspend_worker(self) -> bool:
        worker = self._busy_worker()
        if worker is None or self.suspended:
            return False
        job, child, trainer = self.experiment.job_of(worker), child_of(worker), trainer_of(worker)
        if job is None or child is None or trainer is None:
            return False
        with_trainer = self.rng.random() < 0.5
        pids = [trainer.pid, child.pid, worker.pid] if with_trainer else [child.pid]
        if not all(alive(pid) for pid in pids):
            return False
        attempt = self.experiment.workload.job(job).attempt
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        if not self.experiment.workload.is_writable():  # within a write, which blocks the service on SQLite
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            return False
        resume_at = time.monotonic() + 2 * self.experiment.fleet.settings.lease_seconds
        self.suspended.append(SuspendedWorker(pids, worker, job, attempt, resume_at))
        return True

    def _kill_api(self) -> bool:
        """Kill the API after it has read a request for a job and before its response; the client retries."""
        if self.experiment.remaining_jobs == 0:  # each was answered before its kill
            self.experiment.jobs += 1
        delay = self.rng.random() * self.answer_seconds
        with self.experiment.begin_to_submit() as request:
            time.sleep(delay)
            kill(self.experiment.api.pid)
            answered = _has_response(request)
        self.answer_seconds = delay if answered else self.answer_seconds * 1.2  # kills fall before and after the commit
        self.experiment.replace_api()
        self.experiment.submit()
        return not answered


def _has_response(request: socket.socket) -> bool:
    """Return whether any byte of a response was received."""
    try:
        return bool(request.recv(1))
    except ConnectionResetError:
        return False


def _kill_if_alive(process: psutil.Process | None) -> bool:
    """Kill the process if it is alive, and return whether it was."""
    if process is None or not alive(process.pid):
        return False
    kill(process.pid)
    return True
