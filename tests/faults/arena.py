"""An arena: a fleet under fire, whose dead are replaced, and the jobs that it works on meanwhile."""

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
from tests.faults import calm
from tests.faults.fleet import Fleet, trainer_of
from tests.faults.trainer import REAL_SEED
from tests.faults.workload import Workload, toy
from tests.processes import soon

TOY_EPOCHS = 12


class Arena:
    """Two workers, two keepers, an API and a broker; jobs come in over HTTP, each with an Idempotency-Key."""

    def __init__(self, fleet: Fleet, workload: Workload, jobs: int, real: Sequence[int]) -> None:
        self.fleet, self.workload = fleet, workload
        self.jobs, self._real = jobs, frozenset(real)
        self.submitted: list[str] = []
        self.reserve = 0  # so many jobs are kept for faults of the API
        with workload.database.writing() as session:
            self._key = keys.create(session, workload.tenant, "harness")[1]
        self.workers = [fleet.worker(), fleet.worker()]
        self.keepers = [fleet.keeper(), fleet.keeper()]
        self.api = fleet.api()

    @property
    def unfinished(self) -> list[str]:
        return [job for job in self.submitted if not self.workload.ended([job])]

    @property
    def points(self) -> int:
        """How many metric points all jobs have by now."""
        return sum(self.workload.job(job).last_point for job in self.submitted)

    @property
    def to_come(self) -> int:
        """Jobs that are not submitted yet."""
        return self.jobs - len(self.submitted)

    def submit(self) -> None:
        """Ask for the next job, until it is accepted."""
        soon(lambda: self.try_to_submit() is not None)

    def try_to_submit(self) -> str | None:
        """Send the request for the next job; return its id, or None when no answer came. Sent again, it is the same."""
        body, headers = self._request()
        try:
            answer = self.fleet.http.post("/jobs", content=body, headers=headers)
        except httpx.TransportError:
            return None
        assert answer.status_code == 202, answer.text
        self.submitted.append(answer.json()["id"])
        return self.submitted[-1]

    def begin_to_submit(self) -> socket.socket:
        """Send the request for the next job; return the connection once the API has read all of the request."""
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
        """Start another in the place of a worker or a keeper that was killed."""
        process.wait()
        if process in self.workers:
            self.workers[self.workers.index(process)] = self.fleet.worker()
        else:
            self.keepers[self.keepers.index(process)] = self.fleet.keeper()

    def job_of(self, worker: subprocess.Popen) -> str | None:
        """The job that the worker's trainer runs; None when it runs none, or the row says that it is another's."""
        trainer = trainer_of(worker)
        if trainer is None:
            return None
        for job in self.unfinished:
            row = self.workload.job(job)
            if row.status in HELD and row.worker is not None and row.worker.endswith(f":{worker.pid}"):
                return job
        return None

    def keep_busy(self, share: float) -> None:
        """Submit what is due when that share of the faults has happened; with nothing due, hold the last jobs."""
        due = self.jobs if share == 1 else min(self.jobs - self.reserve, int(share * self.jobs) + 4)
        while len(self.unfinished) < 4 and len(self.submitted) < due:
            self.submit()
        if share < 1 and len(self.unfinished) <= 2:
            self.fleet.hold.touch()
        else:
            self.fleet.hold.unlink(missing_ok=True)

    def stop(self) -> list[str]:
        """End everything politely; return what is left of it."""
        for process in [*self.workers, *self.keepers, self.api]:
            process.terminate()
        for process in [*self.workers, *self.keepers, self.api]:
            process.wait(60)
        return self.fleet.left()

    def _request(self) -> tuple[str, dict[str, str]]:
        """Body and headers of the request for the next job."""
        number = len(self.submitted)
        config = calm.CONFIG if number in self._real else toy(number % REAL_SEED, TOY_EPOCHS)
        body = {"kind": "pretrain", "dataset": self.workload.dataset, "config": config, "name": f"number {number}"}
        headers = {"Authorization": f"Bearer {self._key}", "Idempotency-Key": f"number-{number}"}
        return json.dumps(body), headers | {"Content-Type": "application/json"}


def _unread_bytes(line: socket.socket) -> int:
    """How much of what was sent on a Unix socket the other side has not read, the kernel's own overhead included."""
    count = array.array("i", [0])
    fcntl.ioctl(line, termios.TIOCOUTQ, count)
    return count[0]
