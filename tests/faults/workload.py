"""A workload: jobs for a fleet, and checks that each ended once, with the results of a run without faults.

Most jobs run the toy trainer, one runs `ssl_core`; the checker of the nemesis knows the results of both.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import func, select

from service.db.models import Dataset, Job, Point, Series, Worker
from service.db.session import Database, clock, now
from service.db.statuses import TERMINAL
from service.storage import Storage
from tests.faults import baseline
from tests.faults.nemesis import checker, history
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

    def submit(self, seed: int, epochs: int = 10, **fields: Any) -> str:
        """Submit a job for the toy trainer and return its id."""
        config = toy_config(seed, epochs)
        return given.submit_job(self.database, self.tenant, self.dataset, config=config, **fields).id

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
        found = history.read(self.database, self.storage)
        job = found.jobs[job_id]
        statuses = [event.data["status"] for event in found.events[job_id] if event.code == "status"]
        ends = [status for status in statuses if status in TERMINAL]
        if (job.status, ends) != ("succeeded", ["succeeded"]):
            return [f"{job_id} is {job.status}, {job.status_detail}; it has ended as {ends}"]
        return checker.check_results(found, job)

    def _points(self, job_id: str, name: str) -> list[tuple[int, float | None]]:
        query = select(Point.step, Point.value).join(Series, Series.id == Point.series_id)
        with self.database.reading() as session:
            rows = session.execute(query.where(Series.job_id == job_id, Series.name == name).order_by(Point.seq))
            return [(row.step, row.value) for row in rows]


def toy_config(seed: int, epochs: int) -> dict[str, Any]:
    """Return a config for the toy trainer, which makes ten steps per epoch."""
    return given.PRETRAIN | {"seed": seed, "epochs": epochs, "checkpoints": {"every_steps": 10}}
