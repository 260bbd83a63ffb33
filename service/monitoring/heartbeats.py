"""Heartbeats of workers and keepers: how many were seen recently, and the age of the newest, for Prometheus."""

from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from service.db.models import Worker
from service.db.session import now
from service.doorbell import QUEUES
from service.workers import KEEPER


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """The workers of a queue, or the keepers; `newest_seconds` is the age of the newest heartbeat, if there is one."""

    recent: int = 0
    newest_seconds: float | None = None


def read(session: Session, seen_seconds: float) -> dict[str, Heartbeats]:
    """Return the heartbeats of each queue and of KEEPER; `recent` are those of the last `seen_seconds`."""
    recent = func.count(case((Worker.seen_at > now() - seen_seconds, 1)))
    rows = session.execute(select(Worker.queue, recent, now() - func.max(Worker.seen_at)).group_by(Worker.queue))
    found = {name: Heartbeats(number, max(0.0, float(age))) for name, number, age in rows}
    return {**dict.fromkeys((*QUEUES, KEEPER), Heartbeats()), **found}
