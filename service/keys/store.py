"""The rows of keys: create, identify, list and revoke. A secret is stored as its SHA-256."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import Double, Row, and_, bindparam, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service import text
from service.db import ids
from service.db.models import Key, Tenant
from service.db.session import Reader, now
from service.errors import ExpiredKey, NoSuchKey, WrongKey
from service.keys.scopes import ALL, SCOPE_NEEDED, Scope, parse, sort

Role = Literal["owner", "operator"]  # an operator also reads the metrics of the whole service


@dataclass(frozen=True, slots=True)
class Identity:
    """The key of a request, and its tenant."""

    tenant_id: str
    key_id: str
    key_name: str = ""
    role: Role = "owner"
    scopes: frozenset[Scope] = ALL
    expires_at: float | None = None
    is_revoked: bool = False
    is_expired: bool = False  # by the database's clock

    def check(self, scope: Scope | None = None) -> None:
        """Raise WrongKey for a revoked key, ExpiredKey, or the Forbidden of a scope that the key does not have."""
        if self.is_revoked:
            raise WrongKey
        if self.is_expired:
            raise ExpiredKey
        if scope is not None and scope not in self.scopes:
            raise SCOPE_NEEDED[scope]


def get_or_create_tenant(session: Session, name: str) -> Tenant:
    """Return the tenant of that name, created if missing. Concurrent calls return the same one."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = {"id": ids.new("ten"), "name": text.check_line(name, "/name"), "created_at": now()}
    session.execute(insert(Tenant).values(row).on_conflict_do_nothing(index_elements=["name"]))
    return session.execute(select(Tenant).where(Tenant.name == name)).scalar_one()


def create(
    session: Session,
    tenant_id: str,
    name: str,
    role: Role = "owner",
    *,
    scopes: Iterable[Scope] = ALL,
    expires_at: float | None = None,
) -> tuple[Key, str]:
    """Create a key; return it and its secret, which is not stored. `expires_at` is in Unix seconds.

    Raises InvalidRequest for a name that is not one printable line.
    """
    secret = "tv_" + secrets.token_urlsafe(32)
    key = Key(
        id=ids.new("key"),
        tenant_id=tenant_id,
        name=text.check_line(name, "/name"),
        role=role,
        scopes=" ".join(sort(scopes)),
        sha256=digest(secret),
        created_at=now(),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def identify(reader: Reader, secret: str) -> Identity:
    """Return the identity of the key with this secret, also of a revoked or an expired one. Raises WrongKey."""
    row = reader.execute(_SELECT_IDENTITY, {"sha256": digest(secret)}).one_or_none()
    if row is None:
        raise WrongKey
    return _to_identity(row)


def identify_by_id(reader: Reader, key_id: str) -> Identity:
    """Return the identity of an existing key, also of a revoked or an expired one."""
    return _to_identity(reader.execute(_SELECT_IDENTITY_BY_ID, {"key_id": key_id}).one())


def authenticate(session: Session, secret: str) -> Identity:
    """Return the identity of the valid key with this secret. Raises WrongKey, ExpiredKey."""
    identity = identify(session, secret)
    identity.check()
    return identity


def _to_identity(row: Row[*tuple[Any, ...]]) -> Identity:
    tenant_id, key_id, name, role, scopes, expires_at, is_revoked, is_expired = row
    return Identity(
        tenant_id, key_id, name, cast(Role, role), parse(scopes), expires_at, bool(is_revoked), bool(is_expired)
    )


# Built once, of the table's columns: executed for every request, and the ORM takes twice as long.
_KEYS = Key.__table__.c
_IDENTITY = select(
    _KEYS.tenant_id,
    _KEYS.id,
    _KEYS.name,
    _KEYS.role,
    _KEYS.scopes,
    _KEYS.expires_at,
    _KEYS.revoked_at.is_not(None),
    and_(_KEYS.expires_at.is_not(None), _KEYS.expires_at <= now()),
)
_SELECT_IDENTITY = _IDENTITY.where(_KEYS.sha256 == bindparam("sha256"))
_SELECT_IDENTITY_BY_ID = _IDENTITY.where(_KEYS.id == bindparam("key_id"))


def list_valid(reader: Reader, key_ids: Iterable[str]) -> set[str]:
    """Return those of the keys that are neither revoked nor expired."""
    return set(reader.execute(_SELECT_VALID, {"key_ids": list(key_ids)}).scalars())


_SELECT_VALID = select(_KEYS.id).where(
    _KEYS.id.in_(bindparam("key_ids", expanding=True)),
    _KEYS.revoked_at.is_(None),
    or_(_KEYS.expires_at.is_(None), _KEYS.expires_at > now()),
)


def record_use(session: Session, key_id: str, seconds_ago: float = 0) -> None:
    """Store the time of the key's last use, unless a later one is stored."""
    session.execute(_UPDATE_LAST_USE, {"key": key_id, "seconds_ago": seconds_ago})


_USED_AT = now() - bindparam("seconds_ago", type_=Double)
_UPDATE_LAST_USE = (
    update(Key)
    .where(Key.id == bindparam("key"), or_(Key.last_used_at.is_(None), Key.last_used_at < _USED_AT))
    .values(last_used_at=_USED_AT)
    .execution_options(synchronize_session=False)
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


def digest(secret: str) -> str:
    """Return the SHA-256 under which a secret is stored."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
