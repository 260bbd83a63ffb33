"""A chaos experiment: a fleet that runs jobs during faults, and whose killed processes are replaced."""

import array
import fcntl
import http.client
import json
import socket
import subprocess
import termios
import time
from collections.abc import Sequence

import httpx

from service import keys
from service.db.statuses import HELD
from tests.faults import baseline
from tests.faults.fleet import Fleet, trainer_of
from tests.faults.trainer import REAL_SEED
from tests.faults.workload import Workload, toy_config
from tests.processes import soon

TOY_EPOCHS = 12


class ChaosExperiment:
    """Two workers, two keepers, an API and a broker; jobs are submitted over HTTP with an Idempotency-Key."""

    def __init__(self, fleet: Fleet, workload: Workload, jobs: int, real: Sequence[int]) -> None:
        self.fleet, self.workload = fleet, workload
        self.jobs, self._real = jobs, frozenset(real)
        self.submitted: list[str] = []
        self.reserved_jobs = 0  # submitted during faults of the API only
        with workload.database.writing() as session:
            self._key = keys.create(session, workload.tenant, "harness")[1]
        self.workers = [fleet.worker(), fleet.worker()]
        self.keepers = [fleet.keeper(), fleet.keeper()]
        self.api = fleet.api()

    @property
    def unfinished(self) -> list[str]:
        return [job for job in self.submitted if not self.workload.has_ended([job])]

    @property
    def points(self) -> int:
        """The number of metric points of all jobs."""
        return sum(self.workload.job(job).last_point for job in self.submitted)

    @property
    def remaining_jobs(self) -> int:
        """The number of jobs that are not submitted yet."""
        return self.jobs - len(self.submitted)

    def submit(self) -> None:
        """Submit the next job, with retries until it is accepted."""
        soon(lambda: self.try_to_submit() is not None)

    def try_to_submit(self) -> str | None:
        """Submit the next job; return its id, or None without a response. A retry sends the same request."""
        body, headers = self._request()
        try:
            answer = self.fleet.http.post("/jobs", content=body, headers=headers)
        except httpx.TransportError:
            return None
        assert answer.status_code == 202, answer.text
        self.submitted.append(answer.json()["id"])
        return self.submitted[-1]

    def begin_to_submit(self) -> socket.socket:
        """Send the request for the next job; return the connection once the API has read the whole request."""
        body, headers = self._request()
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(self.fleet.door))
        request = http.client.HTTPConnection("api")
        request.sock = line
        request.request("POST", "/jobs", body, headers)
        until = time.monotonic() + 30
        while _unread_bytes(line):
            assert time.monotonic() < until, "the API did not read the request"
        return line

    def replace_api(self) -> None:
        self.api.wait()
        self.api = self.fleet.api()

    def replace(self, process: subprocess.Popen) -> None:
        """Start another worker or keeper in place of a killed one."""
        process.wait()
        if process in self.workers:
            self.workers[self.workers.index(process)] = self.fleet.worker()
        else:
            self.keepers[self.keepers.index(process)] = self.fleet.keeper()

    def job_of(self, worker: subprocess.Popen) -> str | None:
        """Return the job that the worker's trainer runs; None without one, or when its row names another worker."""
        trainer = trainer_of(worker)
        if trainer is None:
            return None
        for job in self.unfinished:
            row = self.workload.job(job)
            if row.status in HELD and row.worker is not None and row.worker.endswith(f":{worker.pid}"):
                return job
        return None

    def keep_busy(self, share: float) -> None:
        """Submit the jobs that are due at that share of the faults; block the last steps when few jobs are left."""
        due = self.jobs if share == 1 else min(self.jobs - self.reserved_jobs, int(share * self.jobs) + 4)
        while len(self.unfinished) < 4 and len(self.submitted) < due:
            self.submit()
        if share < 1 and len(self.unfinished) <= 2:
            self.fleet.hold.touch()
        else:
            self.fleet.hold.unlink(missing_ok=True)

    def stop(self) -> list[str]:
        """Terminate all processes; return the command lines of those that still run."""
        for process in [*self.workers, *self.keepers, self.api]:
            process.terminate()
        for process in [*self.workers, *self.keepers, self.api]:
            process.wait(60)
        return self.fleet.find_leftovers()

    def _request(self) -> tuple[str, dict[str, str]]:
        """Return body and headers of the request for the next job."""
        number = len(self.submitted)
        config = baseline.CONFIG if number in self._real else toy_config(number % REAL_SEED, TOY_EPOCHS)
        body = {"kind": "pretrain", "dataset": self.workload.dataset, "config": config, "name": f"number {number}"}
        headers = {"Authorization": f"Bearer {self._key}", "Idempotency-Key": f"number-{number}"}
        return json.dumps(body), headers | {"Content-Type": "application/json"}


def _unread_bytes(line: socket.socket) -> int:
    """Return the bytes on a Unix socket that the peer has not read, with the kernel's overhead."""
    count = array.array("i", [0])
    fcntl.ioctl(line, termios.TIOCOUTQ, count)
    return count[0]
