"""Datasets: what people upload. A dataset never changes; a new upload is a new dataset."""

from typing import Literal

from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, exists, select
from sqlalchemy.orm import Session

from service import lifecycle, text
from service.db import ids
from service.db.models import Dataset, Job
from service.db.pagination import Page, newest_first
from service.db.session import clock
from service.db.statuses import TERMINAL, DatasetStatus, JobStatus
from service.errors import DatasetInUse, DatasetNotFound
from service.kinds import INGEST

OnBadFile = Literal["reject", "skip"]


def create(
    session: Session, tenant_id: str, *, name: str, sha256: str, size_bytes: int, on_bad_file: OnBadFile = "reject"
) -> Dataset:
    """Return a new dataset for bytes that were received; the caller has put them at `Storage.upload_path`.

    Bytes that this tenant has ready already, under the same policy, are ready at once and stored once; others are
    `validating` until the ingestion, queued here, has ended. Raises InvalidRequest.
    """
    dataset = Dataset(
        id=ids.new("ds"),
        tenant_id=tenant_id,
        name=text.line(name, "/name"),
        status=DatasetStatus.VALIDATING,
        on_bad_file=on_bad_file,
        sha256=sha256,
        size_bytes=size_bytes,
        created_at=clock(session),
    )
    twin = lifecycle.ready_twin(session, dataset)
    if twin is not None:
        dataset.status, dataset.path, dataset.report = DatasetStatus.READY, twin.path, twin.report
        dataset.ready_at = dataset.created_at
    session.add(dataset)
    session.flush()
    if twin is None:
        _ask_for_ingestion(session, dataset)
    return dataset


def get(session: Session, tenant_id: str, dataset_id: str, *, held: bool = False) -> Dataset:
    """Return the tenant's dataset, `held` against deletion until we commit. Raises DatasetNotFound."""
    if not ids.plausible(dataset_id):
        raise DatasetNotFound
    dataset = session.scalars(_HELD if held else _ONE, {"tenant_id": tenant_id, "dataset_id": dataset_id}).one_or_none()
    if dataset is None:
        raise DatasetNotFound
    return dataset


def list_(
    session: Session, tenant_id: str, after: str | None = None, limit: int = 20, status: str | None = None
) -> Page[Dataset]:
    """Return the tenant's datasets, newest first."""
    query = select(Dataset).where(_mine(tenant_id))
    if status is not None:
        query = query.where(Dataset.status == status)
    return newest_first(session, query, Dataset.id, after, limit)


def delete(session: Session, tenant_id: str, dataset_id: str) -> None:
    """Forget the dataset; its files go with the next sweep. An ingestion that still runs is stopped.

    Raises DatasetNotFound, DatasetInUse.
    """
    get(session, tenant_id, dataset_id)
    ingestions = select(Job).where(Job.dataset_id == dataset_id, Job.kind == INGEST, Job.status.not_in(TERMINAL))
    for job in session.scalars(ingestions.with_for_update(key_share=True)):
        lifecycle.cancel(session, job)
    mine = select(Dataset).where(_mine(tenant_id), Dataset.id == dataset_id).with_for_update(key_share=True)
    dataset = session.scalars(mine.execution_options(populate_existing=True)).one_or_none()
    if dataset is None:
        raise DatasetNotFound
    users = exists().where(Job.dataset_id == dataset_id, Job.kind != INGEST, Job.status.not_in(TERMINAL))
    if session.execute(select(users)).scalar_one():
        raise DatasetInUse
    dataset.deleted_at = clock(session)
    session.flush()


def _mine(tenant_id: str | BindParameter[str]) -> ColumnElement[bool]:
    return and_(Dataset.tenant_id == tenant_id, Dataset.deleted_at.is_(None))


_ONE = select(Dataset).where(_mine(bindparam("tenant_id")), Dataset.id == bindparam("dataset_id"))
_HELD = _ONE.with_for_update(read=True).execution_options(populate_existing=True)


def _ask_for_ingestion(session: Session, dataset: Dataset) -> None:
    job = Job(
        id=ids.new("job"),
        tenant_id=dataset.tenant_id,
        kind=INGEST,
        queue="data",
        dataset_id=dataset.id,
        config={"on_bad_file": dataset.on_bad_file},
        user_metadata={},
        priority=0,
        status=JobStatus.QUEUED,
        created_at=dataset.created_at,
    )
    lifecycle.begin(session, job, "Waits for a worker.")
