"""API keys: bearer tokens of tenants, stored as their SHA-256."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service import text
from service.db import ids
from service.db.models import Key, Tenant
from service.db.session import now
from service.errors import NoSuchKey, WrongKey

Role = Literal["owner", "operator"]  # an operator also reads the metrics of the whole service


@dataclass(frozen=True, slots=True)
class Identity:
    """The tenant and the key of an authenticated request."""

    tenant_id: str
    key_id: str
    role: Role = "owner"


def get_or_create_tenant(session: Session, name: str) -> Tenant:
    """Return the tenant of that name, created if missing. Concurrent calls return the same one."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = {"id": ids.new("ten"), "name": text.check_line(name, "/name"), "created_at": now()}
    session.execute(insert(Tenant).values(row).on_conflict_do_nothing(index_elements=["name"]))
    return session.execute(select(Tenant).where(Tenant.name == name)).scalar_one()


def create(session: Session, tenant_id: str, name: str, role: Role = "owner") -> tuple[Key, str]:
    """Create a key; return it and its secret, which is not stored."""
    secret = "tv_" + secrets.token_urlsafe(32)
    key = Key(
        id=ids.new("key"),
        tenant_id=tenant_id,
        name=text.check_line(name, "/name"),
        role=role,
        sha256=_digest(secret),
        created_at=now(),
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def authenticate(session: Session, secret: str) -> Identity:
    """Return the identity of the key with this secret. Raises WrongKey."""
    row = session.execute(_SELECT_IDENTITY, {"sha256": _digest(secret)}).one_or_none()
    if row is None:
        raise WrongKey
    return Identity(row.tenant_id, row.id, cast(Role, row.role))


# Built once: executed for every request.
_SELECT_IDENTITY = select(Key.tenant_id, Key.id, Key.role).where(
    Key.sha256 == bindparam("sha256"), Key.revoked_at.is_(None)
)


def list_(session: Session, tenant_id: str) -> Sequence[Key]:
    """Return the tenant's keys, newest first, revoked ones included."""
    return session.scalars(select(Key).where(Key.tenant_id == tenant_id).order_by(Key.id.desc())).all()


def revoke(session: Session, tenant_id: str, key_id: str) -> Key:
    """Revoke the key; idempotent. Raises NoSuchKey."""
    if not ids.is_valid(key_id):
        raise NoSuchKey
    conditions = (Key.id == key_id, Key.tenant_id == tenant_id)
    session.execute(update(Key).where(*conditions, Key.revoked_at.is_(None)).values(revoked_at=now()))
    key = session.execute(select(Key).where(*conditions)).scalar_one_or_none()
    if key is None:
        raise NoSuchKey
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
