"""The registry of indexes: create, get, list and delete. An index does not change; new embeddings get a new one."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from service import jobs, lifecycle, text
from service.db import ids
from service.db.kinds import INDEX
from service.db.models import Job, Model, VectorIndex
from service.db.pagination import Page, newest_first
from service.db.session import clock
from service.db.statuses import TERMINAL, IndexStatus, JobStatus
from service.errors import (
    ArtifactNotFound,
    IndexFailed,
    IndexNotFound,
    IndexNotReady,
    JobHasNotSucceeded,
    JobNotFound,
    NoEmbeddings,
)
from ssl_core.errors import Fault

EMBEDDINGS = "embeddings.json"  # the artifact that lists a job's embeddings
BACKBONE = "backbone"


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search needs of a ready index. Paths are relative to the storage root; a deleted model has none."""

    id: str
    path: str
    dataset_id: str | None
    model_path: str | None
    layer: str
    vectors: int
    dim: int


def create(
    session: Session, tenant_id: str, job_id: str, *, name: str | None = None, metadata: Mapping[str, str] | None = None
) -> VectorIndex:
    """Create the index of a job's embeddings; it is `building` until the job that is queued here has ended.

    Raises JobNotFound, JobHasNotSucceeded, NoEmbeddings, InvalidRequest.
    """
    source = _find_source(session, tenant_id, job_id)
    index_id, time = ids.new("idx"), clock(session)
    build = Job(
        id=ids.new("job"),
        tenant_id=tenant_id,
        kind=INDEX,
        queue="data",
        dataset_id=source.dataset_id,
        config={"index": index_id, "job": source.id},
        user_metadata={},
        priority=0,
        status=JobStatus.QUEUED,
        created_at=time,
    )
    index = VectorIndex(
        id=index_id,
        tenant_id=tenant_id,
        name=text.check_line(name, "/name") if name is not None else None,
        status=IndexStatus.BUILDING,
        job_id=source.id,
        build_id=build.id,
        dataset_id=source.dataset_id,
        model_id=source.model_id,
        layer=str((source.resolved or source.config).get("layer", BACKBONE)),
        user_metadata=text.check_metadata(metadata or {}),
        created_at=time,
    )
    lifecycle.insert(session, build, "Waits for a worker.")
    session.add(index)
    session.flush()
    return index


def get(session: Session, tenant_id: str, index_id: str) -> VectorIndex:
    """Return the tenant's index. Raises IndexNotFound."""
    if not ids.is_valid(index_id):
        raise IndexNotFound
    index = session.scalars(select(VectorIndex).where(_owned_by(tenant_id), VectorIndex.id == index_id)).one_or_none()
    if index is None:
        raise IndexNotFound
    return index


def get_searched(session: Session, tenant_id: str, index_id: str) -> Searched:
    """Return the tenant's index, which can be searched. Raises IndexNotFound, IndexNotReady, IndexFailed."""
    index = get(session, tenant_id, index_id)
    if index.status == IndexStatus.BUILDING:
        raise IndexNotReady
    if index.status == IndexStatus.FAILED:
        raise IndexFailed
    report = index.report or {}
    path = select(Model.path).where(Model.id == index.model_id, Model.deleted_at.is_(None))
    return Searched(
        index.id,
        str(index.path),
        index.dataset_id,
        session.scalars(path).one_or_none(),
        index.layer,
        report["vectors"],
        report["dim"],
    )


def list_(
    session: Session,
    tenant_id: str,
    after: str | None = None,
    limit: int = 20,
    *,
    status: str | None = None,
    dataset: str | None = None,
) -> Page[VectorIndex]:
    """Return the tenant's indexes, newest first."""
    query = select(VectorIndex).where(_owned_by(tenant_id))
    if status is not None:
        query = query.where(VectorIndex.status == status)
    if dataset is not None:
        query = query.where(VectorIndex.dataset_id == (dataset if ids.is_valid(dataset) else ""))
    return newest_first(session, query, VectorIndex.id, after, limit)


def delete(session: Session, tenant_id: str, index_id: str) -> None:
    """Delete the index; the keeper removes its files. A building that runs is cancelled. Raises IndexNotFound."""
    build_id = get(session, tenant_id, index_id).build_id
    builds = select(Job).where(Job.id == build_id, Job.status.not_in(TERMINAL)).with_for_update(key_share=True)
    for job in session.scalars(builds):
        lifecycle.cancel(session, job)
    query = select(VectorIndex).where(_owned_by(tenant_id), VectorIndex.id == index_id).with_for_update(key_share=True)
    index = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if index is None:
        raise IndexNotFound
    index.deleted_at = clock(session)
    session.flush()


def _find_source(session: Session, tenant_id: str, job_id: str) -> Job:
    """Return the job whose embeddings are indexed, by the file that lists them; it is not deleted before the commit."""
    pointer = "/job"
    try:
        job = jobs.hold(session, tenant_id, job_id)
    except JobNotFound as error:
        error.errors = [Fault(pointer=pointer, code=error.code, detail=error.detail)]
        raise
    if job.status != JobStatus.SUCCEEDED:
        detail = f"The job is {job.status}; its embeddings are complete once it has succeeded."
        raise JobHasNotSucceeded(detail, errors=[Fault(pointer=pointer, code="job_has_not_succeeded", detail=detail)])
    try:
        jobs.artifact(session, job.id, EMBEDDINGS)
    except ArtifactNotFound as error:
        missing = NoEmbeddings()
        missing.errors = [Fault(pointer=pointer, code=missing.code, detail=missing.detail)]
        raise missing from error
    return job


def _owned_by(tenant_id: str) -> ColumnElement[bool]:
    return and_(VectorIndex.tenant_id == tenant_id, VectorIndex.deleted_at.is_(None))
