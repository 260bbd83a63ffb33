"""A workload: jobs for a fleet, and checks that each ended once, with the results of a run without faults.

Most jobs run the toy trainer, whose results are computed here. Those of `ssl_core` are compared with the baseline run.
"""

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from service import jobs
from service.db.models import Checkpoint, Dataset, Job, Model, Point, Series, Worker
from service.db.session import Database, clock, now
from service.db.statuses import TERMINAL
from service.storage import Storage
from tests.faults import baseline, trainer
from tests.service import given


class Workload:
    """Jobs of one tenant on one dataset of 64 tiny images, which is created unless it is given."""

    def __init__(self, database: Database, storage: Storage, tenant: str, dataset: str | None = None) -> None:
        self.database, self.storage, self.tenant = database, storage, tenant
        self.dataset = dataset or given.create_ready_dataset(database, tenant, images=baseline.IMAGES, classes=2)

    def prepare_real(self) -> None:
        """Write the dataset's files, for jobs of `ssl_core`."""
        with self.database.reading() as session:
            path = session.get_one(Dataset, self.dataset).path
        assert path is not None
        folder = self.storage.absolute(path)
        folder.mkdir(parents=True)
        for name, data in baseline.run_baseline().dataset_files.items():
            (folder / name).write_bytes(data)

    def submit_real(self) -> str:
        """Submit a job for `ssl_core`, at most one, and return its id."""
        self.prepare_real()
        return given.submit_job(self.database, self.tenant, self.dataset, config=baseline.CONFIG).id

    def submit(self, seed: int, epochs: int = 10) -> str:
        """Submit a job for the toy trainer and return its id."""
        return given.submit_job(self.database, self.tenant, self.dataset, config=toy_config(seed, epochs)).id

    def job(self, job_id: str) -> Job:
        return given.get_job(self.database, job_id)

    def has_lease(self, job_id: str) -> bool:
        """Return whether the job's lease has not expired, by the database's clock."""
        with self.database.reading() as session:
            return session.scalars(select(Job.lease_until > now()).where(Job.id == job_id)).one()

    def count_points(self) -> int:
        """Return the number of metric points of all jobs."""
        with self.database.reading() as session:
            return session.scalars(select(func.count()).select_from(Point)).one()

    def clock(self) -> float:
        """Return the time of the database's clock, in Unix seconds."""
        with self.database.reading() as session:
            return clock(session)

    def list_workers(self) -> list[str]:
        """Return the names of all workers that have queried for jobs, and of the keepers."""
        with self.database.reading() as session:
            return list(session.scalars(select(Worker.name)))

    def has_ended(self, job_ids: Sequence[str]) -> bool:
        return all(self.job(job_id).status in TERMINAL for job_id in job_ids)

    def is_writable(self) -> bool:
        """Return whether no process holds SQLite's write lock for 0.5 s; always true on PostgreSQL."""
        url = self.database.engine.url
        if url.get_backend_name() != "sqlite":
            return True
        with closing(sqlite3.connect(str(url.database), timeout=0.5)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()
            except sqlite3.OperationalError:
                return False
        return True

    def names(self) -> list[str | None]:
        """Return the names of the tenant's jobs, without ingestions."""
        with self.database.reading() as session:
            return list(session.scalars(select(Job.name).where(Job.tenant_id == self.tenant, Job.kind != "ingest")))

    def steps(self, job_id: str) -> list[int]:
        """Return the steps of the training loss, in insertion order."""
        return [step for step, _ in self._points(job_id, "train/loss")]

    def faults(self, job_id: str) -> list[str]:
        """Return the differences between the job and a successful run without faults, as sentences."""
        job = self.job(job_id)
        with self.database.reading() as session:
            history = [event.data["status"] for event in jobs.transitions(session, job_id)]
        found = [] if job.status == "succeeded" else [f"{job_id} ended as {job.status}: {job.status_detail}"]
        if sum(status in TERMINAL for status in history) != 1:
            found.append(f"{job_id} ended more than once or never: {history}")
        if not found:
            real = job.config["seed"] >= trainer.REAL_SEED
            found = (self._real_faults(job) if real else self._toy_faults(job)) + self._file_faults(job)
        return found

    def _real_faults(self, job: Job) -> list[str]:
        """Compare with the baseline run; values of timing series may differ, but not their steps."""
        found = []
        wanted = baseline.run_baseline()
        for name, series in wanted.series.items():
            points = self._points(job.id, name)
            if [step for step, _ in points] != [step for step, _ in series]:
                found.append(f"{job.id}: {name} has gaps or duplicates: {[step for step, _ in points]}")
            elif name not in baseline.TIMING_SERIES and points != series:
                found.append(f"{job.id}: {name} has other values than the baseline run")
        if self._model(job).sha256 != wanted.sha256:
            found.append(f"{job.id}: the weights differ from those of the baseline run")
        return found

    def _toy_faults(self, job: Job) -> list[str]:
        seed, total = job.config["seed"], job.config["epochs"] * trainer.STEPS_PER_EPOCH
        points, state = self._points(job.id, "train/loss"), trainer.weights(seed, 0)
        found = []
        if [step for step, _ in points] != list(range(1, total + 1)):
            found.append(f"{job.id}: the metrics have gaps or duplicates: {[step for step, _ in points]}")
        for step, value in points:
            state = trainer.chain(seed, state, step - 1, step)
            if value != trainer.loss(state):
                found.append(f"{job.id}: the loss of step {step} is {value}")
        if self._model(job).sha256 != hashlib.sha256(trainer.weights(seed, total)).hexdigest():
            found.append(f"{job.id}: the weights differ from those of a run without faults")
        return found

    def _file_faults(self, job: Job) -> list[str]:
        """Check the SHA-256 of all referenced files, and that there are no temporary files."""
        model = self._model(job)
        weights = self.storage.absolute(model.path) / "weights.safetensors"
        found = [] if _sha256(weights) == model.sha256 else [f"{job.id}: the weights on disk have another SHA-256"]
        with self.database.reading() as session:
            rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id)).all()
        for row in rows:
            if _sha256(self.storage.absolute(row.path)) != row.sha256:
                found.append(f"{job.id}: {row.path} has another SHA-256")
        folder = self.storage.root / "jobs" / job.id
        leftovers = [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]
        return found + [f"{job.id}: left behind: {path}" for path in leftovers]

    def _model(self, job: Job) -> Model:
        with self.database.reading() as session:
            return session.get_one(Model, job.made_model_id)

    def _points(self, job_id: str, name: str) -> list[tuple[int, float | None]]:
        query = select(Point.step, Point.value).join(Series, Series.id == Point.series_id)
        with self.database.reading() as session:
            rows = session.execute(query.where(Series.job_id == job_id, Series.name == name).order_by(Point.seq))
            return [(row.step, row.value) for row in rows]


def toy_config(seed: int, epochs: int) -> dict[str, Any]:
    """Return a config for the toy trainer, which makes ten steps per epoch."""
    return given.PRETRAIN | {"seed": seed, "epochs": epochs, "checkpoints": {"every_steps": 10}}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
