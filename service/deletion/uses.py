"""Uses: what keeps something from being deleted, as faults whose pointer is the path of what uses it."""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from service.db.kinds import HIDDEN_KINDS
from service.db.models import Job, Sweep, VectorIndex
from service.db.statuses import ACTIVE, TERMINAL, IndexStatus
from ssl_core.errors import Fault

MOST = 100  # that a refusal names, of each kind
_DESCRIBED = 3  # of these, in its sentences


def find_jobs(session: Session, condition: ColumnElement[bool]) -> Iterator[Fault]:
    """Yield a fault for each job of the condition that has not ended, the oldest first.

    Hidden jobs are left out: an ingestion is cancelled, an index is named by `find_indexes`, and a shared job stands
    for those that share it, whose late writes are fenced.
    """
    query = select(Job.id, Job.status).where(condition, Job.kind.not_in(HIDDEN_KINDS), Job.status.not_in(TERMINAL))
    for row in session.execute(query.order_by(Job.id).limit(MOST)):
        detail = f"{row.id}, which is {row.status}, needs it; cancel that job first."
        yield Fault(pointer=f"/jobs/{row.id}", code="job", detail=detail)


def find_indexes(session: Session, condition: ColumnElement[bool]) -> Iterator[Fault]:
    """Yield a fault for each index of the condition that is being built, the oldest first."""
    query = select(VectorIndex.id).where(condition, is_building()).order_by(VectorIndex.id).limit(MOST)
    for index_id in session.scalars(query):
        detail = f"{index_id} is being built from it; wait until it is ready, or delete that index first."
        yield Fault(pointer=f"/indexes/{index_id}", code="index", detail=detail)


def find_sweeps(session: Session, condition: ColumnElement[bool]) -> Iterator[Fault]:
    """Yield a fault for each sweep of the condition that has not ended, the oldest first."""
    query = select(Sweep.id, Sweep.status).where(condition, Sweep.status.in_(ACTIVE), Sweep.deleted_at.is_(None))
    for row in session.execute(query.order_by(Sweep.id).limit(MOST)):
        detail = f"{row.id}, which is {row.status}, needs it; cancel that sweep first."
        yield Fault(pointer=f"/sweeps/{row.id}", code="sweep", detail=detail)


def is_building() -> ColumnElement[bool]:
    """Return the condition of an index whose building reads files of a job and of a dataset."""
    return and_(VectorIndex.status == IndexStatus.BUILDING, VectorIndex.deleted_at.is_(None))


def describe(uses: Sequence[Fault]) -> str:
    """Return the sentences of a refusal: those of the first uses, and how many more there are."""
    more = [f"And {len(uses) - _DESCRIBED} more."] if len(uses) > _DESCRIBED else []
    return " ".join([*(use["detail"] for use in uses[:_DESCRIBED]), *more])
