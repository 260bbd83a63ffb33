"""Garbage collection: the paths that database rows refer to, so that `Storage.sweep` removes all others."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.orm import Session

from service.db.kinds import IMPORT, INDEX, INGEST
from service.db.models import Artifact, Checkpoint, Dataset, Job, Model, Tenant, VectorIndex
from service.db.statuses import TERMINAL, DatasetStatus
from service.storage import (
    attempt_path,
    dataset_folder,
    dataset_path,
    index_folder,
    index_path,
    job_folder,
    upload_folder,
    upload_path,
)


def live_paths(session: Session) -> frozenset[str]:
    """Return the relative paths of files and folders in use; a folder stands for all of its contents."""
    return frozenset().union(
        _paths_of_datasets(session),
        _paths_of_indexes(session),
        _paths_of_imports(session),
        _paths_of_running_jobs(session),
        _paths_of_files(session),
    )


def live_uploads(session: Session) -> frozenset[str]:
    """Return those of `live_paths` that are uploads, datasets or indexes, by fewer and shorter queries."""
    return frozenset().union(
        _paths_of_datasets(session),
        _paths_of_indexes(session),
        _paths_of_imports(session),
        _paths_of_running_jobs(session),
    )


def known_folders(session: Session, *, with_jobs: bool = True) -> frozenset[str]:
    """Return the relative folders of every tenant, dataset, index and job in this database, deleted ones too.

    Other folders are not swept: the database may be new, restored from an older backup, or the wrong one.
    """
    folder_functions = [(Tenant.id, upload_folder), (Dataset.id, dataset_folder), (VectorIndex.id, index_folder)]
    folder_functions += [(Job.id, job_folder)] if with_jobs else []
    return frozenset(
        folder(row_id) for column, folder in folder_functions for row_id in session.scalars(select(column))
    )


@dataclass(frozen=True, slots=True)
class FreedJob:
    """A job of whose files some are no longer referred to: `freed_at` is when the last rows that did were deleted."""

    id: str
    freed_at: float
    has_ended: bool
    live: frozenset[str]  # the paths of its files and folders in use


def list_freed(session: Session, limit: int = 1000) -> list[FreedJob]:
    """Return the jobs with files to remove, the oldest first."""
    query = select(Job.id, Job.parent_id, Job.freed_at, Job.status, Job.attempt).where(Job.freed_at.is_not(None))
    return [
        FreedJob(row.id, row.freed_at, row.status in TERMINAL, _paths_of_job(session, row))
        for row in session.execute(query.order_by(Job.freed_at).limit(limit))
    ]


def mark_cleaned(session: Session, job: FreedJob) -> None:
    """Note that the job has no files left to remove, unless rows of it were deleted since it was listed."""
    statement = update(Job).where(Job.id == job.id, Job.freed_at == job.freed_at).values(freed_at=None)
    session.execute(statement.execution_options(synchronize_session=False))


def _paths_of_job(session: Session, job: Row[*tuple[Any, ...]]) -> frozenset[str]:
    """An artifact of a shared job may lie in the folder of a job that shares it (`service.embedding.sharers`)."""
    is_inside = Artifact.path.startswith(f"{job_folder(job.id)}/", autoescape=True)
    of_job = (
        select(Checkpoint.path).where(Checkpoint.job_id == job.id),
        select(Artifact.path).where(Artifact.job_id == job.id),
        select(Artifact.path).where(Artifact.job_id == job.parent_id, is_inside),
        select(Model.path).where(Model.job_id == job.id, Model.deleted_at.is_(None)),
    )
    named = {path for query in of_job for path in session.scalars(query)}
    return frozenset(named if job.status in TERMINAL else {*named, attempt_path(job.id, job.attempt)})


def _paths_of_datasets(session: Session) -> set[str]:
    query = select(Dataset.tenant_id, Dataset.sha256, Dataset.status, Dataset.path).where(Dataset.deleted_at.is_(None))
    rows = session.execute(query).all()
    waiting = {upload_path(row.tenant_id, row.sha256) for row in rows if row.status == DatasetStatus.VALIDATING}
    return waiting | {row.path for row in rows if row.path is not None}


def _paths_of_indexes(session: Session) -> set[str]:
    named = VectorIndex.path.is_not(None), VectorIndex.deleted_at.is_(None)
    return {str(path) for path in session.scalars(select(VectorIndex.path).where(*named))}


def _paths_of_imports(session: Session) -> set[str]:
    unfinished = select(Job.tenant_id, Job.config).where(Job.kind == IMPORT, Job.status.not_in(TERMINAL))
    return {upload_path(row.tenant_id, row.config["upload"]["sha256"]) for row in session.execute(unfinished)}


def _paths_of_running_jobs(session: Session) -> set[str]:
    """The folder of the current attempt; that of an earlier one is kept while a checkpoint row refers to it."""
    unfinished = select(Job.id, Job.kind, Job.dataset_id, Job.attempt).where(Job.status.not_in(TERMINAL))
    rows = session.execute(unfinished).all()
    packed = {dataset_path(row.dataset_id, row.attempt) for row in rows if row.kind == INGEST}
    building = select(VectorIndex.id, Job.attempt).join(Job, Job.id == VectorIndex.build_id)
    unbuilt = session.execute(building.where(Job.kind == INDEX, Job.status.not_in(TERMINAL))).all()
    packed |= {index_path(row.id, row.attempt) for row in unbuilt}
    return packed | {attempt_path(row.id, row.attempt) for row in rows}


def _paths_of_files(session: Session) -> set[str]:
    models = select(Model.path).where(Model.deleted_at.is_(None))
    queries = (select(Checkpoint.path), select(Artifact.path), models)
    return {path for query in queries for path in session.scalars(query)}
