"""Heartbeats of workers and keepers: which workers were seen recently, for the health check."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.db.models import Worker
from service.db.session import now
from service.doorbell import QUEUES

KEPT_SECONDS = 7 * 86_400
KEEPER = "keeper"  # in place of a queue


def record_heartbeat(session: Session, name: str, queue: str) -> None:
    """Store the current time as that of the last heartbeat of a worker, or of a keeper (`queue` is KEEPER)."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = insert(Worker).values(name=name, queue=queue, seen_at=now())
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"queue": queue, "seen_at": now()}))


def list_recent(session: Session, seconds: float) -> Sequence[Worker]:
    """Return the workers seen in the last `seconds`, by name."""
    recent = select(Worker).where(Worker.seen_at >= now() - seconds, Worker.queue.in_(QUEUES))
    return session.scalars(recent.order_by(Worker.name)).all()


def delete_old(session: Session, seconds: float = KEPT_SECONDS) -> None:
    """Delete the workers not seen in the last `seconds`."""
    session.execute(delete(Worker).where(Worker.seen_at < now() - seconds))


def delete_all(session: Session) -> None:
    """Delete all workers, those of the machine that a restored database was backed up on."""
    session.execute(delete(Worker))
