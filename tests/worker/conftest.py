"""Fixtures of the worker's tests: a job, and attempts at it with the trainer that a test chooses."""

import os
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from service import jobs
from service.db.models import Checkpoint, Job, JobEvent, Point
from service.db.session import Database
from service.leases import Claim
from service.settings import Settings
from service.storage import Storage
from tests.processes import soon
from tests.service import given
from worker.trainer.supervisor import supervise

FAULTY_TRAINER = Path(__file__).with_name("faulty_trainer.py")
TRAINER = Path(__file__).parent.parent / "faults" / "trainer.py"


class Run:
    """A submitted job, and the arguments of its supervisor, with short intervals."""

    def __init__(self, database: Database, storage: Storage, tenant: str, config: dict) -> None:
        self.database, self.storage, self.tenant = database, storage, tenant
        dataset = given.create_ready_dataset(database, tenant)
        self.job_id = given.submit_job(database, tenant, dataset, config=given.PRETRAIN | config).id
        self.stop = threading.Event()
        self.lease_seconds = 30.0
        self.grace_seconds = 20.0

    def attempt(self, trainer: str, claim: Claim | None = None) -> Job:
        """Run an attempt with that trainer, and return the job after it."""
        self.supervise(trainer, claim)
        return self.job

    def supervise(self, trainer: str, claim: Claim | None = None) -> None:
        """Claim the job, unless a claim is given, and run the attempt with that trainer."""
        claim = claim or given.claim_job(self.database, lease_seconds=self.lease_seconds)
        supervise(claim, self.database, self.storage, self.settings(trainer), self.stop.is_set)

    def stop_when(self, reached: Callable[[], object]) -> None:
        """Run an attempt with TRAINER, and stop it before its last step when `reached` is true."""
        hold = Path(os.environ["TWOVIEWS_TEST_HOLD"])
        hold.touch()
        thread = threading.Thread(target=self.supervise, args=(str(TRAINER),))
        thread.start()
        soon(reached)
        self.stop.set()
        thread.join()
        self.stop.clear()
        hold.unlink()

    def settings(self, trainer: str) -> Settings:
        return Settings(
            data_dir=self.storage.root,
            lease_seconds=self.lease_seconds,
            heartbeat_seconds=0.2,
            flush_seconds=0.1,
            grace_seconds=self.grace_seconds,
            trainer_command=[sys.executable, *shlex.split(trainer)],
        )

    @property
    def job(self) -> Job:
        return given.get_job(self.database, self.job_id)

    @property
    def events(self) -> list[JobEvent]:
        with self.database.reading() as session:
            return list(jobs.events(session, self.job_id, limit=1000).items)

    @property
    def steps(self) -> list[int]:
        """The steps of the stored metrics, in insertion order."""
        with self.database.reading() as session:
            return list(session.scalars(select(Point.step).order_by(Point.series_id, Point.seq)))

    @property
    def checkpoints(self) -> list[Checkpoint]:
        with self.database.reading() as session:
            return list(jobs.checkpoints(session, self.job_id))

    def read_pid(self, name: str, attempt: int = 1) -> int:
        """Return the process id in the file `name` of the attempt."""
        return int((self.storage.attempt_dir(self.job_id, attempt) / name).read_text())


@pytest.fixture
def make_run(database: Database, storage: Storage, tenant: str, tmp_path: Path) -> Callable[..., Run]:
    """A factory of jobs; keywords are fields of the config."""
    (tmp_path / "data").mkdir(exist_ok=True)

    def create(**config) -> Run:
        return Run(database, storage, tenant, config)

    return create


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Run:
    """A job with the default config."""
    return make_run()


@pytest.fixture
def _short_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TWOVIEWS_TEST_STEP_SECONDS", "0.005")
    monkeypatch.setenv("TWOVIEWS_TEST_HOLD", str(tmp_path / "hold"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
