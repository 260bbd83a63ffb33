"""Models: import, get and list. A model is visible once the job that made it has succeeded, until it is deleted."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, select
from sqlalchemy.orm import Session

from service import lifecycle, text
from service.aliases import names
from service.db import ids
from service.db.kinds import IMPORT, MODEL_KINDS
from service.db.models import Job, Json, Model
from service.db.pagination import Page, newest_first
from service.db.session import clock
from service.db.statuses import TERMINAL, JobStatus
from service.errors import ModelNotFound, ModelNotReady, ParentFailed
from ssl_core.config import Import
from ssl_core.errors import Fault


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a job's input model: an existing model, or the job that will make it."""

    model_id: str | None
    parent_id: str | None


def submit_import(session: Session, tenant_id: str, *, name: str, sha256: str, size_bytes: int, config: Import) -> Job:
    """Queue the job that makes a model of uploaded weights, which the caller has put at `Storage.upload_path`.

    Raises InvalidRequest.
    """
    job = Job(
        id=ids.new("job"),
        tenant_id=tenant_id,
        kind=IMPORT,
        queue="data",
        name=text.check_line(name, "/name"),
        config={**config.model_dump(mode="json"), "upload": {"sha256": sha256, "size_bytes": size_bytes}},
        user_metadata={},
        priority=0,
        status=JobStatus.QUEUED,
        created_at=clock(session),
    )
    lifecycle.insert(session, job, "Waits for a worker.")
    return job


def get(session: Session, tenant_id: str, name: str) -> Model:
    """Return the tenant's model by its id, an alias, or the id of the job that made it.

    Raises ModelNotFound; ModelNotReady until the job ends; ParentFailed when it ended without a model.
    """
    found = find_source(session, tenant_id, name, lock=False)
    if found.model_id is None:
        raise ModelNotReady
    return session.scalars(select(Model).where(Model.id == found.model_id)).one()


def get_card(session: Session, model_id: str) -> Json:
    """Return the model card of an existing model."""
    return session.execute(select(Model.card).where(Model.id == model_id)).scalar_one()


def list_(session: Session, tenant_id: str, after: str | None = None, limit: int = 20) -> Page[Model]:
    """Return the tenant's models, newest first."""
    return newest_first(session, _select_visible(tenant_id), Model.id, after, limit)


def find_source(session: Session, tenant_id: str, name: str, *, lock: bool = True) -> Source:
    """Return the source of the model `name` (a `mdl_` or a `job_` id, or an alias).

    `lock` keeps a running job from ending before the commit, so that its end includes the job submitted here, and a
    model from being deleted. Raises ModelNotFound; ModelNotReady for a `mdl_` id whose job has not ended; ParentFailed
    when the job made no model.
    """
    if names.is_valid(name):
        return _source_from_model(session, tenant_id, Model.id == names.select_model_id(tenant_id, name), lock)
    if not ids.is_valid(name):
        raise _not_found()
    if name.startswith("job_"):
        return _source_from_job(session, tenant_id, name, lock)
    return _source_from_model(session, tenant_id, Model.id == name, lock)


def _select_visible(tenant_id: str) -> Select[Model]:
    of_succeeded = and_(Job.id == Model.job_id, Job.status == JobStatus.SUCCEEDED)
    return select(Model).join(Job, of_succeeded).where(Model.tenant_id == tenant_id, Model.deleted_at.is_(None))


def _source_from_model(session: Session, tenant_id: str, is_named: ColumnElement[bool], lock: bool) -> Source:
    query = select(Model.id, Model.job_id, Job.status).join(Job, Job.id == Model.job_id)
    query = query.where(Model.tenant_id == tenant_id, is_named, Model.deleted_at.is_(None))
    row = session.execute(query.with_for_update(read=True, of=Model) if lock else query).one_or_none()
    if row is None:
        raise _not_found()
    if row.status != JobStatus.SUCCEEDED:
        raise ModelNotReady
    return Source(row.id, row.job_id)


def _source_from_job(session: Session, tenant_id: str, name: str, lock: bool) -> Source:
    is_there = (Job.tenant_id == tenant_id, Job.id == name, Job.kind.in_(MODEL_KINDS), Job.deleted_at.is_(None))
    query = select(Job).where(*is_there)
    query = query.with_for_update(read=True) if lock else query
    job = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise _not_found()
    if job.status in TERMINAL and (job.status != JobStatus.SUCCEEDED or job.made_model_id is None):
        raise ParentFailed(
            errors=[Fault(pointer="/model", code="parent_failed", detail=f"The job ended as {job.status}.")]
        )
    if job.status == JobStatus.SUCCEEDED:
        return _source_from_model(session, tenant_id, Model.id == job.made_model_id, lock)
    return Source(None, job.id)


def _not_found() -> ModelNotFound:
    return ModelNotFound(errors=[Fault(pointer="/model", code="model_not_found", detail="There is no such model.")])
