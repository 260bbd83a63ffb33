"""Idempotency: what was answered to a request's Idempotency-Key, so that the request sent again does nothing twice."""

import hashlib
from dataclasses import dataclass

from sqlalchemy import delete, select
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


def recall(session: Session, tenant_id: str, key: str, fingerprint: str, hours: float = HOURS) -> Answer | None:
    """Return what was answered to this key, or None: then do the work and `remember`, in this same transaction.

    Two who come at once with the same key are served one after the other, so the second is told what the first was.
    `fingerprint` is the SHA-256 (hex) of method, path and body. Raises InvalidRequest, IdempotencyMismatch, and
    IdempotencyInFlight when the first takes longer than five seconds.
    """
    text.line(key, "Idempotency-Key", MAX_KEY)
    _queue_up(session, tenant_id, key)
    mine = (Idempotency.tenant_id == tenant_id, Idempotency.key == key)
    stale = Idempotency.created_at < now() - hours * 3600
    found = session.execute(select(Idempotency, stale).where(*mine)).one_or_none()
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
    row = Idempotency(
        tenant_id=tenant_id,
        key=key,
        fingerprint=fingerprint,
        status=answer.status,
        location=answer.location,
        body=answer.body,
        created_at=now(),
    )
    session.add(row)
    session.flush()


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
