"""Idempotency: what was answered to a request's Idempotency-Key, so that the request sent again does nothing twice."""

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
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's word for a lock_timeout that is over


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered."""

    status: int
    location: str | None
    body: Json


# Asked with every POST that has a key, and built once.
_STALE = Idempotency.created_at < now() - bindparam("seconds", type_=Double)
_KEPT = select(Idempotency, _STALE).where(
    Idempotency.tenant_id == bindparam("tenant_id"), Idempotency.key == bindparam("key")
)
_KEEP = insert(Idempotency).values(created_at=now())


def recall(session: Session, tenant_id: str, key: str, fingerprint: str, hours: float = HOURS) -> Answer | None:
    """Return what was answered to this key, or None: then do the work and `remember`, in this same transaction.

    Two who come at once with the same key are served one after the other, so the second is told what the first was.
    `fingerprint` is the SHA-256 (hex) of method, path and body. Raises InvalidRequest, IdempotencyMismatch, and
    IdempotencyInFlight when the first takes longer than five seconds.
    """
    text.line(key, "Idempotency-Key", MAX_KEY)
    _queue_up(session, tenant_id, key)
    found = session.execute(_KEPT, {"tenant_id": tenant_id, "key": key, "seconds": hours * 3600}).one_or_none()
    if found is None:
        return None
    row, forgotten = found
    if forgotten:
        session.delete(row)
        session.flush()
        return None
    if row.fingerprint != fingerprint:
        raise IdempotencyMismatch
    return Answer(row.status, row.location, row.body)


def remember(session: Session, tenant_id: str, key: str, fingerprint: str, answer: Answer) -> None:
    """Write down what will be answered to this key, if this transaction is committed."""
    row = {"tenant_id": tenant_id, "key": key, "fingerprint": fingerprint, **asdict(answer)}
    session.connection().execute(_KEEP, row)


def forget(session: Session, hours: float = HOURS) -> None:
    """Drop what is older than `hours`."""
    session.execute(delete(Idempotency).where(Idempotency.created_at < now() - hours * 3600))


def _queue_up(session: Session, tenant_id: str, key: str) -> None:
    """Wait until no other transaction works under this key. On SQLite there is one writer at a time anyway."""
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
