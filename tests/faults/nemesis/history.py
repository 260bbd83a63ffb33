"""The history of an experiment: all that the database and the storage hold after it, and the responses to clients."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.db.models import Artifact, Checkpoint, Dataset, Idempotency, Job, JobEvent, Model, Point, Series
from service.db.session import Database
from service.storage import Storage
from tests.faults.nemesis.audit import Change


@dataclass(frozen=True)
class Promise:
    """An acknowledged request: `id` is the job's, of an upload the dataset's."""

    name: str
    key: str
    kind: str
    id: str


@dataclass
class History:
    """Rows by the id of their job. `files` are relative paths of the storage."""

    root: Path
    promises: list[Promise]
    cancelled: frozenset[str]
    retried: frozenset[str]
    jobs: dict[str, Job]
    datasets: dict[str, Dataset]
    changes: dict[str, list[Change]]
    events: dict[str, list[JobEvent]]
    points: dict[str, dict[str, list[Point]]]  # then by the name of the series
    checkpoints: dict[str, list[Checkpoint]]
    artifacts: dict[str, list[Artifact]]
    models: dict[str, Model]
    responses: dict[str, Idempotency]  # by Idempotency-Key
    files: frozenset[str]
    processes: list[str] = field(default_factory=list)  # command lines of those that were left


def read(
    database: Database,
    storage: Storage,
    promises: Sequence[Promise] = (),
    cancelled: frozenset[str] = frozenset(),
    changes: Sequence[Change] = (),
    retried: frozenset[str] = frozenset(),
) -> History:
    """Read the history. changes: those of the audit, which was installed before the first job, if it was."""
    with database.reading() as session:
        series = {row.id: row for row in session.scalars(select(Series))}
        points: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
        for point in session.scalars(select(Point).order_by(Point.series_id, Point.seq)):
            points[series[point.series_id].job_id][series[point.series_id].name].append(point)
        return History(
            storage.root,
            list(promises),
            cancelled,
            retried,
            {job.id: job for job in session.scalars(select(Job).order_by(Job.id))},
            {row.id: row for row in session.scalars(select(Dataset))},
            _group(changes),
            _group(session.scalars(select(JobEvent).order_by(JobEvent.job_id, JobEvent.seq))),
            points,
            _group(session.scalars(select(Checkpoint).order_by(Checkpoint.step))),
            _group(session.scalars(select(Artifact))),
            {row.job_id: row for row in session.scalars(select(Model))},
            {row.key: row for row in session.scalars(select(Idempotency))},
            frozenset(list_files(storage.root)),
        )


def list_files(root: Path) -> list[str]:
    """Return the relative paths of the files of the storage, without the database's and sockets."""
    folders = ("tmp", "uploads", "datasets", "jobs")
    return [
        path.relative_to(root).as_posix() for name in folders for path in (root / name).rglob("*") if path.is_file()
    ]


def _group(rows: Any) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        grouped[row.job_id].append(row)
    return grouped
