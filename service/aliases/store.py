"""Aliases of an owner: put, list and delete. An alias names one model at any moment; moving it is one statement."""

from collections.abc import Sequence

from sqlalchemy import Select, select
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service import models
from service.aliases import names
from service.db.models import Alias
from service.db.pagination import Page
from service.db.session import clock
from service.errors import AliasNotFound, InvalidRequest, ModelNotReady
from ssl_core.errors import Fault


def put(session: Session, tenant_id: str, name: str, model: str) -> Alias:
    """Let the alias name the model, whether it named another one before or not.

    model: its id, the id of the job that made it, or another alias. Raises InvalidRequest, ModelNotFound,
    ModelNotReady, ParentFailed.
    """
    _check_name(name, "alias")
    model_id = models.find_source(session, tenant_id, model).model_id
    if model_id is None:
        raise ModelNotReady
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    time = clock(session)
    new = insert(Alias).values(tenant_id=tenant_id, name=name, model_id=model_id, created_at=time, moved_at=time)
    moved = {"model_id": new.excluded.model_id, "moved_at": new.excluded.moved_at}
    moving = new.on_conflict_do_update(
        index_elements=[Alias.tenant_id, Alias.name], set_=moved, where=Alias.model_id != new.excluded.model_id
    )
    session.execute(moving)
    return session.scalars(_select(tenant_id).where(Alias.name == name)).one()


def list_(session: Session, tenant_id: str, after: str | None = None, limit: int = 20) -> Page[Alias]:
    """Return the tenant's aliases by name; `after` is the last name of the page before. Raises InvalidRequest."""
    query = _select(tenant_id)
    if after is not None:
        _check_name(after, "after")
        query = query.where(Alias.name > after)
    rows = session.scalars(query.order_by(Alias.name).limit(limit + 1)).all()
    items, has_more = rows[:limit], len(rows) > limit
    return Page(items, has_more, items[-1].name if has_more else None)


def list_by_model(session: Session, model_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the aliases of each of the models, sorted."""
    found: dict[str, list[str]] = {model_id: [] for model_id in model_ids}
    query = select(Alias.model_id, Alias.name).where(Alias.model_id.in_(model_ids)).order_by(Alias.name)
    for model_id, name in session.execute(query):
        found[model_id].append(name)
    return found


def delete(session: Session, tenant_id: str, name: str) -> str:
    """Delete the alias, and return the id of the model that it named. Raises AliasNotFound."""
    if not names.is_valid(name):
        raise AliasNotFound
    statement = delete_from(Alias).where(Alias.tenant_id == tenant_id, Alias.name == name).returning(Alias.model_id)
    model_id = session.execute(statement).scalar_one_or_none()
    if model_id is None:
        raise AliasNotFound
    return model_id


def _check_name(name: str, pointer: str) -> None:
    if not names.is_valid(name):
        detail = "An alias is a small letter and at most 62 of a-z, 0-9, `.`, `_`, `-`; it does not begin like an id."
        raise InvalidRequest(detail, errors=[Fault(pointer=pointer, code="pattern", detail=detail)])


def _select(tenant_id: str) -> Select[Alias]:
    return select(Alias).where(Alias.tenant_id == tenant_id).execution_options(populate_existing=True)
