"""Turns: the queued job that is claimed next. Owners take turns; `priority` and age order the jobs of one owner.

The next job is that of the owner with the fewest running jobs in the queue, then of the one who was served longest ago.
An owner takes every worker while no other one waits, and the next free worker goes to one who has waited since.
"""

import time
from functools import cache

from sqlalchemy import ColumnElement, Integer, Select, String, and_, bindparam, func, or_, select, true
from sqlalchemy.orm import Session

from service.db.models import Job
from service.db.session import now
from service.db.statuses import HELD, JobStatus

_QUEUE = bindparam("of_queue", type_=String)
_IS_QUEUED = and_(Job.queue == _QUEUE, Job.status == JobStatus.QUEUED)
_LOCK_SECONDS = 1.0
_LOCK_POLL_SECONDS = 0.005


def is_claimable() -> ColumnElement[bool]:
    """Return the condition of a job that can be claimed: queued, and not delayed after an attempt without progress."""
    return and_(Job.status == JobStatus.QUEUED, or_(Job.lease_until.is_(None), Job.lease_until <= now()))


def wait_for_turn(session: Session, queue: str) -> None:
    """Let other transactions that claim a job of this queue end first, so that this one sees what they run.

    On SQLite they have ended: there is one writer. On PostgreSQL it waits for a second at most, because a frozen worker
    may stop no other; jobs are claimed once without it, and only the order of owners depends on it.
    """
    if session.get_bind().dialect.name == "sqlite":
        return
    lock = select(func.pg_try_advisory_xact_lock(func.hashtext(f"twoviews.claim.{queue}")))
    started = time.monotonic()
    while not session.execute(lock).scalar_one() and time.monotonic() - started < _LOCK_SECONDS:
        time.sleep(_LOCK_POLL_SECONDS)


@cache
def select_next(dialect: str) -> Select[str]:
    """Return the query for the id of the next job of `:of_queue` of an owner who runs fewer than `:max_running` of it.

    On PostgreSQL it locks the row, skips rows that are locked, and reads those of the first owner that has another.
    """
    owners = _select_owners().order_by("running", "served", "id").subquery("owners")
    first = (
        select(Job.id)
        .where(_IS_QUEUED, is_claimable(), Job.tenant_id == owners.c.id)
        .order_by(Job.priority.desc(), Job.id)
        .limit(1)
        .correlate(owners)
    )
    if dialect == "sqlite":
        found = select(first.scalar_subquery().label("job_id"), *owners.c).subquery("found")
        query, order = select(found.c.job_id).where(found.c.job_id.is_not(None)), found.c
    else:
        row = first.with_for_update(skip_locked=True, key_share=True).lateral()
        query, order = select(row.c.id).select_from(owners.join(row, true())), owners.c
    runs_fewer = order.running < bindparam("max_running", type_=Integer)
    return query.where(runs_fewer).order_by(order.running, order.served, order.id).limit(1)


def _select_owners() -> Select[str, int, float]:
    """Return the query for the owners of queued jobs: id, number of running jobs, and time of the last claim.

    The owners are read from the index one by one, which takes as long for ten thousand jobs as for one.
    """
    waiting = select(func.min(Job.tenant_id).label("id")).where(_IS_QUEUED).cte("waiting", recursive=True)
    following = select(func.min(Job.tenant_id)).where(_IS_QUEUED, Job.tenant_id > waiting.c.id).correlate(waiting)
    waiting = waiting.union_all(select(following.scalar_subquery()).where(waiting.c.id.is_not(None)))
    held = select(Job.tenant_id, func.count().label("jobs")).where(Job.queue == _QUEUE, Job.status.in_(HELD))
    running = held.group_by(Job.tenant_id).subquery("running")
    served = select(func.max(Job.claimed_at)).where(Job.queue == _QUEUE, Job.tenant_id == waiting.c.id)
    return (
        select(
            waiting.c.id,
            func.coalesce(running.c.jobs, 0).label("running"),
            func.coalesce(served.correlate(waiting).scalar_subquery(), 0.0).label("served"),
        )
        .outerjoin_from(waiting, running, running.c.tenant_id == waiting.c.id)
        .where(waiting.c.id.is_not(None))
    )
