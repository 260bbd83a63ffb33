"""Workers: which were seen lately, so that the service knows whether anybody would run a job."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.db.models import Worker
from service.db.session import now

FORGOTTEN_SECONDS = 7 * 86_400


def seen(session: Session, name: str, queue: str) -> None:
    """Write down that the worker of that queue is there."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = insert(Worker).values(name=name, queue=queue, seen_at=now())
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"queue": queue, "seen_at": now()}))


def lately(session: Session, seconds: float) -> Sequence[Worker]:
    """Return the workers seen within so many seconds, by name."""
    return session.scalars(select(Worker).where(Worker.seen_at >= now() - seconds).order_by(Worker.name)).all()


def forget(session: Session, seconds: float = FORGOTTEN_SECONDS) -> None:
    """Drop those that were not seen for so long."""
    session.execute(delete(Worker).where(Worker.seen_at < now() - seconds))
