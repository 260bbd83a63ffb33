"""Datasets: create, get, list and delete. A dataset is immutable; a new upload is a new dataset."""

import json
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, select
from sqlalchemy.orm import Session

from service import lifecycle, text
from service.db import ids
from service.db.kinds import INGEST
from service.db.models import Dataset, Job, Sweep, VectorIndex
from service.db.pagination import Page, newest_first
from service.db.session import Reader, clock
from service.db.statuses import TERMINAL, DatasetStatus, JobStatus
from service.deletion import uses
from service.errors import DatasetFailed, DatasetInUse, DatasetNotFound, DatasetNotReady
from ssl_core.config import Reading

DEFAULTS = Reading()


def create(
    session: Session, tenant_id: str, *, name: str, sha256: str, size_bytes: int, reading: Reading = DEFAULTS
) -> Dataset:
    """Create the dataset of an upload, which the caller has put at `Storage.upload_path`.

    If the tenant has a ready dataset of the same bytes and options, the new one is ready and shares its files;
    otherwise it is `validating` until the ingestion job, queued here, has ended. Raises InvalidRequest.
    """
    dataset = Dataset(
        id=ids.new("ds"),
        tenant_id=tenant_id,
        name=text.check_line(name, "/name"),
        status=DatasetStatus.VALIDATING,
        on_bad_file=reading.on_bad_file,
        reading=json.dumps(other_options(reading), sort_keys=True),
        sha256=sha256,
        size_bytes=size_bytes,
        created_at=clock(session),
    )
    duplicate = lifecycle.find_ready_duplicate(session, dataset)
    if duplicate is not None:
        dataset.status, dataset.path, dataset.report = DatasetStatus.READY, duplicate.path, duplicate.report
        dataset.ready_at, dataset.stored_bytes = dataset.created_at, duplicate.stored_bytes
    session.add(dataset)
    session.flush()
    if duplicate is None:
        _queue_ingestion(session, dataset, reading)
    return dataset


def other_options(reading: Reading) -> dict[str, Any]:
    """Return the fields that differ from the defaults, but for `on_bad_file`, which has its own column."""
    return reading.model_dump(mode="json", exclude={"on_bad_file"}, exclude_defaults=True)


def get(session: Session, tenant_id: str, dataset_id: str, *, lock: bool = False) -> Dataset:
    """Return the tenant's dataset; `lock` prevents its deletion until the commit. Raises DatasetNotFound."""
    if not ids.is_valid(dataset_id):
        raise DatasetNotFound
    query = _SELECT_BY_ID_FOR_SHARE if lock else _SELECT_BY_ID
    dataset = session.scalars(query, {"tenant_id": tenant_id, "dataset_id": dataset_id}).one_or_none()
    if dataset is None:
        raise DatasetNotFound
    return dataset


def get_ready(session: Session, tenant_id: str, dataset_id: str, *, lock: bool = False) -> Dataset:
    """Return the tenant's dataset, whose files can be read. Raises DatasetNotFound, DatasetNotReady, DatasetFailed."""
    dataset = get(session, tenant_id, dataset_id, lock=lock)
    _check_ready(dataset.status)
    return dataset


def get_path(reader: Reader, tenant_id: str, dataset_id: str) -> str:
    """Return the path of a ready dataset, without reading its report. Raises as `get_ready` does."""
    if not ids.is_valid(dataset_id):
        raise DatasetNotFound
    found = reader.execute(_SELECT_PATH, {"tenant_id": tenant_id, "dataset_id": dataset_id}).one_or_none()
    if found is None:
        raise DatasetNotFound
    _check_ready(found.status)
    return str(found.path)


def list_(
    session: Session, tenant_id: str, after: str | None = None, limit: int = 20, status: str | None = None
) -> Page[Dataset]:
    """Return the tenant's datasets, newest first."""
    query = select(Dataset).where(_owned_by(tenant_id))
    if status is not None:
        query = query.where(Dataset.status == status)
    return newest_first(session, query, Dataset.id, after, limit)


def delete(session: Session, tenant_id: str, dataset_id: str) -> None:
    """Delete the dataset; the keeper removes its files. A running ingestion is cancelled.

    Raises DatasetNotFound, DatasetInUse.
    """
    get(session, tenant_id, dataset_id)
    ingestions = select(Job).where(Job.dataset_id == dataset_id, Job.kind == INGEST, Job.status.not_in(TERMINAL))
    for job in session.scalars(ingestions.with_for_update(key_share=True)):
        lifecycle.cancel(session, job)
    query = select(Dataset).where(_owned_by(tenant_id), Dataset.id == dataset_id).with_for_update(key_share=True)
    dataset = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if dataset is None:
        raise DatasetNotFound
    building = and_(VectorIndex.tenant_id == tenant_id, VectorIndex.dataset_id == dataset_id)
    if used_by := [
        *uses.find_jobs(session, Job.dataset_id == dataset_id),
        *uses.find_sweeps(session, Sweep.dataset_id == dataset_id),
        *uses.find_indexes(session, building),
    ]:
        raise DatasetInUse(uses.describe(used_by), errors=used_by)
    dataset.deleted_at = clock(session)
    session.flush()


def _owned_by(tenant_id: str | BindParameter[str]) -> ColumnElement[bool]:
    return and_(Dataset.tenant_id == tenant_id, Dataset.deleted_at.is_(None))


_SELECT_BY_ID = select(Dataset).where(_owned_by(bindparam("tenant_id")), Dataset.id == bindparam("dataset_id"))
_SELECT_PATH = select(Dataset.status, Dataset.path).where(
    _owned_by(bindparam("tenant_id")), Dataset.id == bindparam("dataset_id")
)
_SELECT_BY_ID_FOR_SHARE = _SELECT_BY_ID.with_for_update(read=True).execution_options(populate_existing=True)


def _check_ready(status: str) -> None:
    if status == DatasetStatus.VALIDATING:
        raise DatasetNotReady
    if status == DatasetStatus.FAILED:
        raise DatasetFailed


def _queue_ingestion(session: Session, dataset: Dataset, reading: Reading) -> None:
    job = Job(
        id=ids.new("job"),
        tenant_id=dataset.tenant_id,
        kind=INGEST,
        queue="data",
        dataset_id=dataset.id,
        config=reading.model_dump(mode="json"),
        user_metadata={},
        priority=0,
        status=JobStatus.QUEUED,
        created_at=dataset.created_at,
    )
    lifecycle.insert(session, job, "Waits for a worker.")
