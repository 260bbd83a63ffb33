"""Leftovers: what of the storage is ours and what the rows still point at, so that `Storage.sweep` removes the rest."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.models import Artifact, Checkpoint, Dataset, Job, Model, Tenant
from service.db.statuses import TERMINAL, DatasetStatus
from service.kinds import IMPORT, INGEST
from service.storage import attempt_path, dataset_folder, dataset_path, job_folder, upload_folder, upload_path


def live_paths(session: Session) -> frozenset[str]:
    """Return the relative paths that must stay, each with all that is in it."""
    return frozenset().union(_of_datasets(session), _of_imports(session), _of_running_jobs(session), _of_files(session))


def known_folders(session: Session) -> frozenset[str]:
    """Return the relative folders of every tenant, dataset and job that this database has ever had.

    What stands beside them is another database's: this one may be new, restored from an older copy, or the wrong one.
    """
    owners = ((Tenant.id, upload_folder), (Dataset.id, dataset_folder), (Job.id, job_folder))
    return frozenset(folder(known) for column, folder in owners for known in session.scalars(select(column)))


def _of_datasets(session: Session) -> set[str]:
    there = select(Dataset.tenant_id, Dataset.sha256, Dataset.status, Dataset.path).where(Dataset.deleted_at.is_(None))
    rows = session.execute(there).all()
    waiting = {upload_path(row.tenant_id, row.sha256) for row in rows if row.status == DatasetStatus.VALIDATING}
    return waiting | {row.path for row in rows if row.path is not None}


def _of_imports(session: Session) -> set[str]:
    unfinished = select(Job.tenant_id, Job.config).where(Job.kind == IMPORT, Job.status.not_in(TERMINAL))
    return {upload_path(row.tenant_id, row.config["upload"]["sha256"]) for row in session.execute(unfinished)}


def _of_running_jobs(session: Session) -> set[str]:
    """The folder of the present attempt; earlier ones stay for as long as a checkpoint in them is pointed at."""
    unfinished = select(Job.id, Job.kind, Job.dataset_id, Job.attempt).where(Job.status.not_in(TERMINAL))
    rows = session.execute(unfinished).all()
    packed = {dataset_path(row.dataset_id, row.attempt) for row in rows if row.kind == INGEST}
    return packed | {attempt_path(row.id, row.attempt) for row in rows}


def _of_files(session: Session) -> set[str]:
    return {path for table in (Checkpoint, Artifact, Model) for path in session.scalars(select(table.path))}
