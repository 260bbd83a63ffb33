"""Garbage collection: the paths that database rows refer to, so that `Storage.sweep` removes all others."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.kinds import IMPORT, INGEST
from service.db.models import Artifact, Checkpoint, Dataset, Job, Model, Tenant
from service.db.statuses import TERMINAL, DatasetStatus
from service.storage import attempt_path, dataset_folder, dataset_path, job_folder, upload_folder, upload_path


def live_paths(session: Session) -> frozenset[str]:
    """Return the relative paths of files and folders in use; a folder stands for all of its contents."""
    return frozenset().union(
        _paths_of_datasets(session),
        _paths_of_imports(session),
        _paths_of_running_jobs(session),
        _paths_of_files(session),
    )


def live_uploads(session: Session) -> frozenset[str]:
    """Return those of `live_paths` that are uploads or datasets, by fewer and shorter queries."""
    return frozenset().union(_paths_of_datasets(session), _paths_of_imports(session), _paths_of_running_jobs(session))


def known_folders(session: Session, *, with_jobs: bool = True) -> frozenset[str]:
    """Return the relative folders of every tenant, dataset and job in this database, ended and deleted ones included.

    Other folders are not swept: the database may be new, restored from an older backup, or the wrong one.
    """
    folder_functions = [(Tenant.id, upload_folder), (Dataset.id, dataset_folder)]
    folder_functions += [(Job.id, job_folder)] if with_jobs else []
    return frozenset(
        folder(row_id) for column, folder in folder_functions for row_id in session.scalars(select(column))
    )


def _paths_of_datasets(session: Session) -> set[str]:
    query = select(Dataset.tenant_id, Dataset.sha256, Dataset.status, Dataset.path).where(Dataset.deleted_at.is_(None))
    rows = session.execute(query).all()
    waiting = {upload_path(row.tenant_id, row.sha256) for row in rows if row.status == DatasetStatus.VALIDATING}
    return waiting | {row.path for row in rows if row.path is not None}


def _paths_of_imports(session: Session) -> set[str]:
    unfinished = select(Job.tenant_id, Job.config).where(Job.kind == IMPORT, Job.status.not_in(TERMINAL))
    return {upload_path(row.tenant_id, row.config["upload"]["sha256"]) for row in session.execute(unfinished)}


def _paths_of_running_jobs(session: Session) -> set[str]:
    """The folder of the current attempt; that of an earlier one is kept while a checkpoint row refers to it."""
    unfinished = select(Job.id, Job.kind, Job.dataset_id, Job.attempt).where(Job.status.not_in(TERMINAL))
    rows = session.execute(unfinished).all()
    packed = {dataset_path(row.dataset_id, row.attempt) for row in rows if row.kind == INGEST}
    return packed | {attempt_path(row.id, row.attempt) for row in rows}


def _paths_of_files(session: Session) -> set[str]:
    return {path for table in (Checkpoint, Artifact, Model) for path in session.scalars(select(table.path))}
