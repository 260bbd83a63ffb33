"""An arena: a fleet under fire, whose dead are replaced, and the jobs that it works on meanwhile."""

import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import httpx

from service import keys
from service.db.models import HELD
from tests import servers
from tests.faults import calm
from tests.faults.fleet import Fleet, soon, trainer_of
from tests.faults.trainer import REAL_SEED
from tests.faults.workload import Workload, toy

TOY_EPOCHS = 12


class Arena:
    """Two workers, two keepers, an API and a broker; jobs come in over HTTP, each with an Idempotency-Key."""

    def __init__(self, fleet: Fleet, workload: Workload, jobs: int, real: Sequence[int]) -> None:
        self.fleet, self.workload = fleet, workload
        self.jobs, self._real = jobs, frozenset(real)
        self.submitted: list[str] = []
        self.reserve = 0  # so many jobs are kept for faults of the API
        self.hold = Path(fleet.environment["TWOVIEWS_TEST_HOLD"])
        self._port = servers.free_port()
        with workload.database.writing() as session:
            self._key = keys.create(session, workload.tenant, "harness")[1]
        self.workers = [fleet.worker(), fleet.worker()]
        self.keepers = [fleet.keeper(), fleet.keeper()]
        self.api = fleet.api(self._port)
        soon(self._api_lives)

    @property
    def unfinished(self) -> list[str]:
        return [job for job in self.submitted if not self.workload.ended([job])]

    @property
    def to_come(self) -> int:
        """Jobs that are not submitted yet."""
        return self.jobs - len(self.submitted)

    def submit(self) -> None:
        """Ask for the next job, until it is accepted."""
        soon(lambda: self.try_to_submit() is not None)

    def try_to_submit(self) -> str | None:
        """Send the request for the next job; return its id, or None when no answer came. Sent again, it is the same."""
        number = len(self.submitted)
        config = calm.CONFIG if number in self._real else toy(number % REAL_SEED, TOY_EPOCHS)
        body = {"kind": "pretrain", "dataset": self.workload.dataset, "config": config, "name": f"number {number}"}
        headers = {"Authorization": f"Bearer {self._key}", "Idempotency-Key": f"number-{number}"}
        try:
            answer = httpx.post(f"http://127.0.0.1:{self._port}/jobs", json=body, headers=headers, timeout=30)
        except httpx.TransportError:
            return None
        assert answer.status_code == 202, answer.text
        self.submitted.append(answer.json()["id"])
        return self.submitted[-1]

    def replace_api(self) -> None:
        self.api.wait()
        self.api = self.fleet.api(self._port)
        soon(self._api_lives)

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
            self.hold.touch()
        else:
            self.hold.unlink(missing_ok=True)

    def stop(self) -> list[str]:
        """End everything politely; return what is left of it."""
        for process in [*self.workers, *self.keepers, self.api]:
            process.terminate()
        for process in [*self.workers, *self.keepers, self.api]:
            process.wait(60)
        return self.fleet.left()

    def submit_in_background(self) -> threading.Thread:
        thread = threading.Thread(target=self.try_to_submit)
        thread.start()
        return thread

    def _api_lives(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}/health/live", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


def environment(folder: Path) -> dict[str, str]:
    """What a fleet's processes need to know beside their settings."""
    return {
        "TWOVIEWS_TEST_HOLD": str(folder / "hold"),
        "TWOVIEWS_TEST_STEP_SECONDS": "0.02",
    }
