"""Keys: who owns what, and the bearer keys that prove it. Only a key's SHA-256 is kept."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service import text
from service.db import ids
from service.db.models import Key, Tenant
from service.db.session import now
from service.errors import NoSuchKey, WrongKey


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is asking."""

    tenant_id: str
    key_id: str


def tenant(session: Session, name: str) -> Tenant:
    """Return the tenant of that name, made now when there is none. Two who ask at once get the same one."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = {"id": ids.new("ten"), "name": text.line(name, "/name"), "created_at": now()}
    session.execute(insert(Tenant).values(row).on_conflict_do_nothing(index_elements=["name"]))
    return session.execute(select(Tenant).where(Tenant.name == name)).scalar_one()


def create(session: Session, tenant_id: str, name: str) -> tuple[Key, str]:
    """Return a new key and its secret, which is shown now and never again."""
    secret = "tv_" + secrets.token_urlsafe(32)
    key = Key(
        id=ids.new("key"), tenant_id=tenant_id, name=text.line(name, "/name"), sha256=_digest(secret), created_at=now()
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def authenticate(session: Session, secret: str) -> Identity:
    """Return who holds this key. Raises WrongKey."""
    row = session.execute(_HOLDER, {"sha256": _digest(secret)}).one_or_none()
    if row is None:
        raise WrongKey
    return Identity(row[0], row[1])


# Asked with every request, and built once.
_HOLDER = select(Key.tenant_id, Key.id).where(Key.sha256 == bindparam("sha256"), Key.revoked_at.is_(None))


def list_(session: Session, tenant_id: str) -> Sequence[Key]:
    """Return the tenant's keys, newest first, the revoked ones too."""
    return session.scalars(select(Key).where(Key.tenant_id == tenant_id).order_by(Key.id.desc())).all()


def revoke(session: Session, tenant_id: str, key_id: str) -> Key:
    """Make the key useless from now on; a revoked key stays as it was. Raises NoSuchKey."""
    if not ids.plausible(key_id):
        raise NoSuchKey
    mine = (Key.id == key_id, Key.tenant_id == tenant_id)
    session.execute(update(Key).where(*mine, Key.revoked_at.is_(None)).values(revoked_at=now()))
    key = session.execute(select(Key).where(*mine)).scalar_one_or_none()
    if key is None:
        raise NoSuchKey
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
