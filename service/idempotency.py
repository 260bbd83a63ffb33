"""Idempotency: stored responses by Idempotency-Key, so that a repeated request is processed once."""

import hashlib
from dataclasses import asdict, dataclass

from sqlalchemy import Double, bindparam, delete, insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service import text
from service.db.models import Idempotency, Json
from service.db.session import now
from service.errors import IdempotencyInFlight, IdempotencyMismatch

HOURS = 24.0
MAX_KEY = 255  # characters
WAIT_SECONDS = 5
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's error code for an expired lock_timeout


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The response to the first request with a key."""

    status: int
    location: str | None
    body: Json


# Built once: executed for every POST with a key.
_IS_EXPIRED = Idempotency.created_at < now() - bindparam("seconds", type_=Double)
_SELECT_RESPONSE = select(Idempotency, _IS_EXPIRED).where(
    Idempotency.tenant_id == bindparam("tenant_id"), Idempotency.key == bindparam("key")
)
_INSERT_RESPONSE = insert(Idempotency).values(created_at=now())


def is_known(session: Session, tenant_id: str, key: str) -> bool:
    """Whether a response is stored for the key, whatever the request."""
    return session.get(Idempotency, (tenant_id, key)) is not None


def find_response(
    session: Session, tenant_id: str, key: str, fingerprint: str, hours: float = HOURS
) -> StoredResponse | None:
    """Return the stored response for this key, or None: then process the request and `store_response` in the same
    transaction.

    Concurrent requests with the same key are serialized, so the second gets the response to the first. `fingerprint` is
    the SHA-256 (hex) of method, path and body. Raises InvalidRequest, IdempotencyMismatch, and IdempotencyInFlight when
    the first takes longer than five seconds.
    """
    text.check_line(key, "Idempotency-Key", MAX_KEY)
    _lock_key(session, tenant_id, key)
    found = session.execute(
        _SELECT_RESPONSE, {"tenant_id": tenant_id, "key": key, "seconds": hours * 3600}
    ).one_or_none()
    if found is None:
        return None
    row, is_expired = found
    if is_expired:
        session.delete(row)
        session.flush()
        return None
    if row.fingerprint != fingerprint:
        raise IdempotencyMismatch
    return StoredResponse(row.status, row.location, row.body)


def store_response(session: Session, tenant_id: str, key: str, fingerprint: str, response: StoredResponse) -> None:
    """Store the response for this key, in the caller's transaction."""
    row = {"tenant_id": tenant_id, "key": key, "fingerprint": fingerprint, **asdict(response)}
    session.connection().execute(_INSERT_RESPONSE, row)


def delete_expired(session: Session, hours: float = HOURS) -> None:
    """Delete the responses older than `hours`."""
    session.execute(delete(Idempotency).where(Idempotency.created_at < now() - hours * 3600))


def _lock_key(session: Session, tenant_id: str, key: str) -> None:
    """Lock the key until the end of the transaction. SQLite needs no lock: it has one writer at a time."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        return
    digest = hashlib.sha256(f"{tenant_id} {key}".encode()).digest()
    number = int.from_bytes(digest[:8], "big", signed=True)
    try:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (number,))
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise IdempotencyInFlight(retry_after=WAIT_SECONDS) from error
