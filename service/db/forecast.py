"""Forecast: the position of a queued job, and an estimate of when a worker takes it.

The position follows the order of `service.db.turns`, without the internal jobs that share another. The
estimate assumes that jobs take as long as recent ones of their kind, and that no others are submitted.
"""

import heapq
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, or_, select

from service.db.kinds import EMBED_SHARDS
from service.db.models import Job, Worker
from service.db.session import Reader, now
from service.db.statuses import HELD, JobStatus

_RECENT = 200  # ended jobs of the queue, whose durations are averaged
_FIRST = 200  # queued jobs, of whose kinds the others are taken to be
_FORESEEN_SECONDS = 10 * 365 * 86_400
_MOST = 10_000  # jobs before it, of which the start is estimated
_JOBS = Job.__table__.c
_Shown = Job | Row[*tuple[Any, ...]]  # or the columns of `Job`


@dataclass(frozen=True, slots=True)
class Forecast:
    """The position in the queue, from 1, and the Unix time at which a worker may take the job, if it can be known."""

    position: int
    starts_at: float | None


def forecast(reader: Reader, job: _Shown, seen_seconds: float) -> Forecast | None:
    """Return the forecast of a queued job; None for any other.

    seen_seconds: workers that were seen in so many last seconds are there.
    """
    if job.status != JobStatus.QUEUED:
        return None
    position = _count_before(reader, job) + 1
    return Forecast(position, _estimate_start(reader, job, position, seen_seconds))


def _count_before(reader: Reader, job: _Shown) -> int:
    """Count the jobs that are claimed before this one: owners with fewer running jobs come first."""
    before = or_(_JOBS.priority > job.priority, and_(_JOBS.priority == job.priority, _JOBS.id < job.id))
    queued = _is_queued(job.queue)
    rank = _scalar(reader, select(func.count()).where(queued, _JOBS.tenant_id == job.tenant_id, before))
    running = _count_by_owner(reader, and_(_JOBS.queue == job.queue, _JOBS.status.in_(HELD)))
    level = running.get(job.tenant_id, 0) + rank  # of its owner's running jobs, when it is claimed
    waiting = _count_by_owner(reader, queued)
    turns = _last_turns(reader, job.queue, waiting)
    # At a level, an owner who has climbed to it was served later than one who was there.
    order = {owner: (-running.get(owner, 0), turns[owner], owner) for owner in waiting}
    count = rank
    for owner, jobs in waiting.items():
        if owner != job.tenant_id:
            count += min(jobs, max(0, level - running.get(owner, 0) + (order[owner] < order[job.tenant_id])))
    return int(count)


def _is_queued(queue: str) -> ColumnElement[bool]:
    return and_(_JOBS.queue == queue, _JOBS.status == JobStatus.QUEUED, _JOBS.kind != EMBED_SHARDS)


def _count_by_owner(reader: Reader, condition: Any) -> dict[str, int]:
    query = select(_JOBS.tenant_id, func.count()).where(condition).group_by(_JOBS.tenant_id)
    return {row[0]: row[1] for row in reader.execute(query)}


def _last_turns(reader: Reader, queue: str, owners: Collection[str]) -> dict[str, float]:
    """Return the Unix time of each owner's last claim in the queue; 0 without one."""
    query = select(_JOBS.tenant_id, func.max(_JOBS.claimed_at)).where(_JOBS.tenant_id.in_(owners), _JOBS.queue == queue)
    return {row[0]: float(row[1] or 0) for row in reader.execute(query.group_by(_JOBS.tenant_id))}


def _estimate_start(reader: Reader, job: _Shown, position: int, seen_seconds: float) -> float | None:
    time = float(_scalar(reader, select(now())))
    seen = (Worker.queue == job.queue, Worker.seen_at >= time - seen_seconds)
    workers = _scalar(reader, select(func.count()).select_from(Worker).where(*seen))
    durations = _measure_durations(reader, job.queue)
    columns = (_JOBS.kind, _JOBS.claimed_at, _JOBS.progress)
    held = reader.execute(select(*columns).where(_JOBS.queue == job.queue, _JOBS.status.in_(HELD))).all()
    free_in = [_seconds_left(row, time, durations) for row in held] + [0.0] * max(0, workers - len(held))
    if not free_in or position > _MOST or None in free_in[: len(held)]:
        return None
    duration = _average_queued(reader, job.queue, durations)
    if duration is None and position > free_in.count(0.0):
        return None
    heap = [float(seconds or 0) for seconds in free_in]
    heapq.heapify(heap)
    for _ in range(position - 1):
        heapq.heapreplace(heap, heap[0] + (duration or 0))
    return time + heap[0] if heap[0] < _FORESEEN_SECONDS else None


def _measure_durations(reader: Reader, queue: str) -> dict[str, float]:
    """Return the mean seconds for which recent jobs of each kind have run."""
    ended = select(_JOBS.id).where(_JOBS.queue == queue, _JOBS.status == JobStatus.SUCCEEDED)  # from the index alone
    newest = ended.order_by(_JOBS.id.desc()).limit(_RECENT)
    query = select(_JOBS.kind, func.avg(_JOBS.run_seconds)).where(_JOBS.id.in_(newest)).group_by(_JOBS.kind)
    return {row[0]: float(row[1]) for row in reader.execute(query)}


def _seconds_left(row: Any, time: float, durations: dict[str, float]) -> float | None:
    eta = (row.progress or {}).get("eta_seconds")
    if eta is not None:
        return max(0.0, float(eta))
    whole = durations.get(row.kind)
    return None if whole is None else max(0.0, whole - (time - (row.claimed_at or time)))


def _average_queued(reader: Reader, queue: str, durations: dict[str, float]) -> float | None:
    """Return the mean duration of the queued jobs; None when one is of a kind whose duration is not known."""
    first = select(_JOBS.kind).where(_is_queued(queue)).limit(_FIRST).subquery()
    query = select(first.c.kind, func.count()).group_by(first.c.kind)
    counts = {row[0]: int(row[1]) for row in reader.execute(query)}
    if not counts.keys() <= durations.keys():
        return None
    return sum(number * durations[kind] for kind, number in counts.items()) / max(1, sum(counts.values()))


def _scalar(reader: Reader, query: Any) -> Any:
    return reader.execute(query).scalar_one()
