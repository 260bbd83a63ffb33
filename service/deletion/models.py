"""Deletion of a model, unless something needs it."""

from collections.abc import Iterator

from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from service import models
from service.db.models import Alias, Job, Model, Sweep
from service.db.session import clock
from service.deletion.uses import MOST, describe, find_jobs, find_sweeps
from service.errors import ModelInUse, ModelNotFound, ModelNotReady
from ssl_core.errors import Fault


def delete(session: Session, tenant_id: str, name: str) -> str:
    """Delete the model `name`, as `models.find_source` finds it, and return its id; the keeper removes its files.

    Its row stays without its card: jobs that have used it still show its id. Raises ModelNotFound, ModelNotReady,
    ParentFailed; ModelInUse while a job or a sweep that has not ended uses it, or an alias names it.
    """
    source = models.find_source(session, tenant_id, name, lock=False)
    if source.model_id is None:
        raise ModelNotReady
    # The job before its model, as those lock them who submit a job with it.
    maker: Job = session.scalars(_LOCK_JOB, {"id": source.parent_id}).one()
    model: Model | None = session.scalars(_LOCK_MODEL, {"id": source.model_id}).one_or_none()
    if model is None:
        raise ModelNotFound
    if used_by := [*_find_uses(session, model)]:
        raise ModelInUse(describe(used_by), errors=used_by)
    model.card = {}
    model.deleted_at = maker.freed_at = clock(session)
    session.flush()
    return model.id


def _find_uses(session: Session, model: Model) -> Iterator[Fault]:
    query = select(Alias.name).where(Alias.model_id == model.id).order_by(Alias.name).limit(MOST)
    for name in session.scalars(query):
        detail = f"The alias {name} names it; move or delete the alias first."
        yield Fault(pointer=f"/aliases/{name}", code="alias", detail=detail)
    yield from find_jobs(session, or_(Job.model_id == model.id, Job.parent_id == model.job_id))
    yield from find_sweeps(session, or_(Sweep.model_id == model.id, Sweep.parent_id == model.job_id))


_LOCK_JOB, _LOCK_MODEL = (
    query.with_for_update(key_share=True).execution_options(populate_existing=True)
    for query in (
        select(Job).where(Job.id == bindparam("id")),
        select(Model).where(Model.id == bindparam("id"), Model.deleted_at.is_(None)),
    )
)
