"""Inventory: the stored files and folders that the database names, with what was recorded of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from service.db.kinds import IMPORT
from service.db.models import Artifact, Checkpoint, Dataset, Job, Model, VectorIndex
from service.db.statuses import HELD, TERMINAL, DatasetStatus
from service.storage import upload_path

Kind = Literal["artifact", "checkpoint", "dataset", "index", "model", "upload"]


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or the folder of a dataset, an index or a model; `path` is relative to the storage root."""

    kind: Kind
    path: str
    sha256: str = ""  # of the file, or of a model's weights
    size_bytes: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """The position in the order of a verification."""
        return self.kind, self.path


def list_items(session: Session, *, running: bool = False) -> list[Item]:
    """Return every item once, by kind and path.

    running: whether to include the checkpoints of jobs that a worker runs, whose trainer replaces them.
    """
    listers = (*_LISTERS, _running_checkpoints) if running else _LISTERS
    found = {item.key: item for lister in listers for item in lister(session)}
    return [found[key] for key in sorted(found)]


def _datasets(session: Session) -> Iterator[Item]:
    named = Dataset.path.is_not(None), Dataset.deleted_at.is_(None)
    for path in session.scalars(select(Dataset.path).where(*named)):
        yield Item("dataset", str(path))


def _indexes(session: Session) -> Iterator[Item]:
    named = VectorIndex.path.is_not(None), VectorIndex.deleted_at.is_(None)
    for path in session.scalars(select(VectorIndex.path).where(*named)):
        yield Item("index", str(path))


def _models(session: Session) -> Iterator[Item]:
    for row in session.execute(select(Model.path, Model.sha256, Model.size_bytes).where(Model.deleted_at.is_(None))):
        yield Item("model", row.path, row.sha256, row.size_bytes)


def _checkpoints(session: Session) -> Iterator[Item]:
    """The checkpoints of jobs that no worker runs; resuming checks those of the others."""
    return _checkpoints_of(session, Job.status.not_in(HELD))


def _running_checkpoints(session: Session) -> Iterator[Item]:
    return _checkpoints_of(session, Job.status.in_(HELD))


def _checkpoints_of(session: Session, jobs: ColumnElement[bool]) -> Iterator[Item]:
    query = select(Checkpoint.path, Checkpoint.sha256, Checkpoint.size_bytes).join(Job, Job.id == Checkpoint.job_id)
    for row in session.execute(query.where(jobs)):
        yield Item("checkpoint", row.path, row.sha256, row.size_bytes)


def _artifacts(session: Session) -> Iterator[Item]:
    for row in session.execute(select(Artifact.path, Artifact.sha256, Artifact.size_bytes)):
        yield Item("artifact", row.path, row.sha256, row.size_bytes)


def _uploads(session: Session) -> Iterator[Item]:
    """The uploads that wait for ingestion or import; each is named by its SHA-256."""
    waiting = Dataset.status == DatasetStatus.VALIDATING, Dataset.deleted_at.is_(None)
    for row in session.execute(select(Dataset.tenant_id, Dataset.sha256, Dataset.size_bytes).where(*waiting)):
        yield Item("upload", upload_path(row.tenant_id, row.sha256), row.sha256, row.size_bytes)
    unfinished: Any = select(Job.tenant_id, Job.config).where(Job.kind == IMPORT, Job.status.not_in(TERMINAL))
    for tenant_id, config in session.execute(unfinished):
        upload = config["upload"]
        yield Item("upload", upload_path(tenant_id, upload["sha256"]), upload["sha256"], upload["size_bytes"])


_LISTERS = (_datasets, _indexes, _models, _checkpoints, _artifacts, _uploads)
