"""Models: what finished runs left, and imports. A model shows itself once the job that made it has succeeded."""

from dataclasses import dataclass

from sqlalchemy import Select, and_, select
from sqlalchemy.orm import Session

from service import lifecycle, text
from service.db import ids
from service.db.models import Job, Json, Model
from service.db.pagination import Page, newest_first
from service.db.session import clock
from service.db.statuses import TERMINAL, JobStatus
from service.errors import ModelNotFound, ModelNotReady, ParentFailed
from service.kinds import IMPORT, MODEL_KINDS
from ssl_core.config import Import
from ssl_core.errors import Fault


@dataclass(frozen=True, slots=True)
class Source:
    """Where a job's model comes from: a model that is there, or the job that is to make it."""

    model_id: str | None
    parent_id: str | None


def create(session: Session, tenant_id: str, *, name: str, sha256: str, size_bytes: int, config: Import) -> Job:
    """Return the job that makes a model of weights that were received, queued; they are at `Storage.upload_path`.

    Raises InvalidRequest.
    """
    job = Job(
        id=ids.new("job"),
        tenant_id=tenant_id,
        kind=IMPORT,
        queue="data",
        name=text.line(name, "/name"),
        config={**config.model_dump(mode="json"), "upload": {"sha256": sha256, "size_bytes": size_bytes}},
        user_metadata={},
        priority=0,
        status=JobStatus.QUEUED,
        created_at=clock(session),
    )
    lifecycle.begin(session, job, "Waits for a worker.")
    return job


def get(session: Session, tenant_id: str, name: str) -> Model:
    """Return the tenant's model, named by its id or by the id of the job that made it.

    Raises ModelNotFound; ModelNotReady while the job goes on; ParentFailed when it ended without a model.
    """
    found = source(session, tenant_id, name, hold=False)
    if found.model_id is None:
        raise ModelNotReady
    return session.scalars(select(Model).where(Model.id == found.model_id)).one()


def card(session: Session, model_id: str) -> Json:
    """Return all that the run wrote down about a model that is there."""
    return session.execute(select(Model.card).where(Model.id == model_id)).scalar_one()


def list_(session: Session, tenant_id: str, after: str | None = None, limit: int = 20) -> Page[Model]:
    """Return the tenant's models, newest first."""
    return newest_first(session, _shown(tenant_id), Model.id, after, limit)


def source(session: Session, tenant_id: str, name: str, *, hold: bool = True) -> Source:
    """Return where the model `name` (a `mdl_` or a `job_` id) is to be had.

    With `hold`, a job that goes on cannot end before we commit, so that it will see who waits for it. Raises
    ModelNotFound; ModelNotReady for a `mdl_` id whose job goes on; ParentFailed when the job left no model.
    """
    if not ids.plausible(name):
        raise _not_found()
    if name.startswith("job_"):
        return _from_job(session, tenant_id, name, hold)
    return _from_model(session, tenant_id, name)


def _shown(tenant_id: str) -> Select[Model]:
    made = and_(Job.id == Model.job_id, Job.status == JobStatus.SUCCEEDED)
    return select(Model).join(Job, made).where(Model.tenant_id == tenant_id)


def _from_model(session: Session, tenant_id: str, name: str) -> Source:
    maker = select(Model.job_id, Job.status).join(Job, Job.id == Model.job_id)
    row = session.execute(maker.where(Model.tenant_id == tenant_id, Model.id == name)).one_or_none()
    if row is None:
        raise _not_found()
    if row.status != JobStatus.SUCCEEDED:
        raise ModelNotReady
    return Source(name, row.job_id)


def _from_job(session: Session, tenant_id: str, name: str, hold: bool) -> Source:
    mine = select(Job).where(Job.tenant_id == tenant_id, Job.id == name, Job.kind.in_(MODEL_KINDS))
    mine = mine.with_for_update(read=True) if hold else mine
    job = session.scalars(mine.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise _not_found()
    if job.status in TERMINAL and (job.status != JobStatus.SUCCEEDED or job.made_model_id is None):
        raise ParentFailed(errors=[Fault(pointer="/model", code="parent_failed", detail=f"It ended as {job.status}.")])
    return Source(job.made_model_id if job.status == JobStatus.SUCCEEDED else None, job.id)


def _not_found() -> ModelNotFound:
    return ModelNotFound(errors=[Fault(pointer="/model", code="model_not_found", detail="There is no such model.")])
