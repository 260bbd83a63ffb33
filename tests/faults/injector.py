"""An injector: the ways to hurt a fleet. Each waits for a moment when it matters, acts, and says whether it did."""

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
from tests.faults.arena import Arena
from tests.faults.fleet import child_of, kill, trainer_of
from tests.processes import alive

PATIENCE_SECONDS = 40
SHARES = {
    "trainer": 26,
    "celery child": 18,
    "celery worker": 16,
    "keeper": 12,
    "broker, data kept": 6,
    "broker, data lost": 6,
    "worker asleep": 10,
    "api in POST /jobs": 6,
}


def plan(faults: int, rng: random.Random) -> list[str]:
    """Return so many kinds of fault in a random order, in these shares, each kind at least once."""
    kinds = list(SHARES)
    kinds += rng.choices(list(SHARES), list(SHARES.values()), k=max(0, faults - len(kinds)))
    rng.shuffle(kinds)
    return kinds[:faults]


@dataclass
class Sleeper:
    """A worker that was stopped with the job it held, to be woken once that job is somebody else's.

    On SQLite, one that was stopped within a transaction holds everybody up, so none sleeps for ever.
    """

    pids: list[int]
    worker: subprocess.Popen
    job: str
    attempt: int
    longest: float


@dataclass
class Injector:
    """Does the faults of a plan to an arena. `unhappened` are those whose moment never came."""

    arena: Arena
    rng: random.Random
    gap_seconds: float = 0.5
    happened: list[str] = field(default_factory=list)
    unhappened: list[str] = field(default_factory=list)
    sleepers: list[Sleeper] = field(default_factory=list)
    answer_seconds: float = 0.02  # about what the API takes to answer a request that it has read

    def carry_out(self, kinds: Sequence[str]) -> None:
        """Do the faults of a plan in turn."""
        for number, kind in enumerate(kinds):
            requests = kinds[number:].count("api in POST /jobs")  # each needs a job that is still to be asked for
            self.arena.reserve = min(2 * requests, self.arena.jobs - 1)
            self.do(kind, number / len(kinds))

    def do(self, kind: str, share: float) -> None:
        """Try until the fault has happened or its time is over; `share` of the plan is done."""
        acts: dict[str, Callable[[], bool]] = {
            "trainer": self._kill_trainer,
            "celery child": self._kill_child,
            "celery worker": self._kill_worker,
            "keeper": self._kill_keeper,
            "broker, data kept": lambda: self._kill_broker("kept"),
            "broker, data lost": lambda: self._kill_broker("lost"),
            "worker asleep": self._put_to_sleep,
            "api in POST /jobs": self._kill_api,
        }
        start = time.monotonic() + self.rng.uniform(0, 2 * self.gap_seconds)
        while (now := time.monotonic()) < start + PATIENCE_SECONDS:
            self.arena.keep_busy(share)
            self.wake()
            if now >= start and acts[kind]():
                self.happened.append(kind)
                return
            time.sleep(self.rng.random() * 0.1)
        self.unhappened.append(kind)

    def wake(self) -> None:
        """Wake the sleepers that were given up, and those that slept for long enough past their lease."""
        for sleeper in list(self.sleepers):
            job = self.arena.workload.job(sleeper.job)
            given_up = job.attempt > sleeper.attempt or job.status not in HELD
            if given_up or time.monotonic() > sleeper.longest:
                for pid in sleeper.pids:
                    if alive(pid):
                        os.kill(pid, signal.SIGCONT)
                self.sleepers.remove(sleeper)

    def _busy_worker(self) -> subprocess.Popen | None:
        asleep = [sleeper.worker for sleeper in self.sleepers]
        awake = [worker for worker in self.arena.workers if worker not in asleep]
        busy = [worker for worker in awake if self.arena.job_of(worker) is not None]
        return self.rng.choice(busy) if busy else None

    def _kill_trainer(self) -> bool:
        worker = self._busy_worker()
        return worker is not None and _killed(trainer_of(worker))

    def _kill_child(self) -> bool:
        worker = self._busy_worker()
        return worker is not None and _killed(child_of(worker))

    def _kill_worker(self) -> bool:
        worker = self._busy_worker()
        if worker is None or not _killed(psutil.Process(worker.pid)):
            return False
        self.arena.replace(worker)
        return True

    def _kill_keeper(self) -> bool:
        if not self.arena.unfinished:
            return False
        keeper = self.rng.choice(self.arena.keepers)
        if not _killed(psutil.Process(keeper.pid)):
            return False
        self.arena.replace(keeper)
        return True

    def _kill_broker(self, data: str) -> bool:
        if not self.arena.unfinished:
            return False
        self.arena.fleet.broker.kill(data)
        time.sleep(self.rng.random() * 0.5)
        self.arena.fleet.broker.start()
        return True

    def _put_to_sleep(self) -> bool:
        worker = self._busy_worker()
        if worker is None or self.sleepers:
            return False
        job, child, trainer = self.arena.job_of(worker), child_of(worker), trainer_of(worker)
        if job is None or child is None or trainer is None:
            return False
        everything = self.rng.random() < 0.5
        pids = [trainer.pid, child.pid, worker.pid] if everything else [child.pid]
        if not all(alive(pid) for pid in pids):
            return False
        attempt = self.arena.workload.job(job).attempt
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        if not self.arena.workload.writable():  # within a write, which on SQLite is everybody's
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            return False
        longest = time.monotonic() + 2 * self.arena.fleet.settings.lease_seconds
        self.sleepers.append(Sleeper(pids, worker, job, attempt, longest))
        return True

    def _kill_api(self) -> bool:
        """Kill the API when it has read a request for a job and not answered it; the client asks again."""
        if self.arena.to_come == 0:
            return False
        delay = self.rng.random() * self.answer_seconds
        with self.arena.begin_to_submit() as request:
            time.sleep(delay)
            kill(self.arena.api.pid)
            answered = _received(request)
        self.answer_seconds = delay if answered else self.answer_seconds * 1.2  # so that kills fall before and after
        self.arena.replace_api()
        self.arena.submit()
        return not answered


def _received(request: socket.socket) -> bool:
    """Whether anything came before the other side's end."""
    try:
        return bool(request.recv(1))
    except ConnectionResetError:
        return False


def _killed(process: psutil.Process | None) -> bool:
    """Kill the process when it is there and alive, and see it die."""
    if process is None or not alive(process.pid):
        return False
    kill(process.pid)
    return True
