"""Uses: what keeps a job or a model from being deleted, as faults whose pointer is the path of what uses it."""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from service.db.models import Job
from service.db.statuses import TERMINAL
from ssl_core.errors import Fault

MOST = 100  # that a refusal names, of each kind


def find_jobs(session: Session, condition: ColumnElement[bool]) -> Iterator[Fault]:
    """Yield a fault for each job of the condition that has not ended, the oldest first."""
    query = select(Job.id, Job.status).where(condition, Job.status.not_in(TERMINAL)).order_by(Job.id).limit(MOST)
    for row in session.execute(query):
        detail = f"{row.id}, which is {row.status}, needs it; cancel that job first."
        yield Fault(pointer=f"/jobs/{row.id}", code="job", detail=detail)


def describe(uses: Sequence[Fault]) -> str:
    """Return the sentence of a refusal."""
    more = f" And {len(uses) - 1} more." if len(uses) > 1 else ""
    return uses[0]["detail"] + more
