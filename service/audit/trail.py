"""The rows of the audit trail. They are only added, in the transaction of what they record, and deleted when old."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Double, bindparam, delete, insert, select
from sqlalchemy.orm import Session

from service import text
from service.audit.actions import Action
from service.db import ids
from service.db.models import AuditEntry
from service.db.pagination import Page, newest_first
from service.db.session import now

DAY_SECONDS = 86_400
_MAX_TARGET, _MAX_ADDRESS, _MAX_REQUEST_ID = 300, 64, 128


@dataclass(frozen=True, slots=True)
class Actor:
    """The owner and the key of a request, with the client's address. Without a key: a command on the server."""

    tenant_id: str
    key_id: str | None = None
    key_name: str | None = None
    address: str | None = None
    request_id: str | None = None


def record(session: Session, actor: Actor, action: Action, target: str, seconds_ago: float = 0, **detail: Any) -> None:
    """Add an entry: what `actor` did with the resource `target`, an id. `detail` has no secret."""
    row = {
        "id": ids.new("aud"),
        "tenant_id": actor.tenant_id,
        "action": action,
        "target": text.clean(target, _MAX_TARGET),
        "key_id": actor.key_id,
        "key_name": actor.key_name,
        "address": text.clean(actor.address, _MAX_ADDRESS) if actor.address else None,
        "request_id": text.clean(actor.request_id, _MAX_REQUEST_ID) if actor.request_id else None,
        "detail": text.clean_json(detail),
        "seconds_ago": seconds_ago,
    }
    session.execute(_INSERT, row)


_INSERT = insert(AuditEntry).values(at=now() - bindparam("seconds_ago", type_=Double))


def list_(
    session: Session,
    tenant_id: str,
    after: str | None = None,
    limit: int = 20,
    *,
    action: Action | None = None,
    key: str | None = None,
    since: float | None = None,
) -> Page[AuditEntry]:
    """Return the tenant's entries, newest first; `since` is in Unix seconds. Raises InvalidRequest."""
    query = select(AuditEntry).where(AuditEntry.tenant_id == tenant_id)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if key is not None:
        query = query.where(AuditEntry.key_id == key)
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    return newest_first(session, query, AuditEntry.id, after, limit)


def delete_old(session: Session, days: float) -> int:
    """Delete the entries that are older than `days`; return their number."""
    found = session.execute(
        delete(AuditEntry).where(AuditEntry.at < now() - days * DAY_SECONDS).returning(AuditEntry.id)
    )
    return len(found.all())
