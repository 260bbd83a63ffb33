"""Fixtures of the worker's tests: an attempt at a job with a trainer of the test's choice."""

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
from tests.service import given
from worker.trainer.supervisor import supervise

ODD_TRAINER = Path(__file__).with_name("odd_trainer.py")
TRAINER = Path(__file__).parent.parent / "faults" / "trainer.py"


class Run:
    """A submitted job and what its supervisor is given; times are short."""

    def __init__(self, database: Database, storage: Storage, tenant: str, config: dict) -> None:
        self.database, self.storage, self.tenant = database, storage, tenant
        dataset = given.create_ready_dataset(database, tenant)
        self.job_id = given.submit_job(database, tenant, dataset, config=given.PRETRAIN | config).id
        self.stop = threading.Event()
        self.lease_seconds = 30.0
        self.grace_seconds = 20.0

    def attempt(self, trainer: str, claim: Claim | None = None) -> Job:
        """See an attempt through, and return the job as it is then."""
        self.supervise(trainer, claim)
        return self.job

    def supervise(self, trainer: str, claim: Claim | None = None) -> None:
        """Claim the job, unless that is done, and see the attempt through with that trainer."""
        claim = claim or given.claim_job(self.database, lease_seconds=self.lease_seconds)
        supervise(claim, self.database, self.storage, self.settings(trainer), self.stop.is_set)

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
        """The steps of the stored metrics, in the order they were stored."""
        with self.database.reading() as session:
            return list(session.scalars(select(Point.step).order_by(Point.series_id, Point.seq)))

    @property
    def checkpoints(self) -> list[Checkpoint]:
        with self.database.reading() as session:
            return list(jobs.checkpoints(session, self.job_id))

    def left(self, name: str, attempt: int = 1) -> int:
        """The process id that the attempt's trainer wrote down."""
        return int((self.storage.attempt_dir(self.job_id, attempt) / name).read_text())


@pytest.fixture
def a_run(database: Database, storage: Storage, tenant: str, tmp_path: Path) -> Callable[..., Run]:
    """Makes a job; keywords are fields of its config."""
    (tmp_path / "data").mkdir(exist_ok=True)

    def make(**config) -> Run:
        return Run(database, storage, tenant, config)

    return make


@pytest.fixture
def run(a_run: Callable[..., Run]) -> Run:
    """A job with the default config."""
    return a_run()


@pytest.fixture
def _quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOVIEWS_TEST_STEP_SECONDS", "0.005")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
