"""Counts of jobs, attempts and datasets, queues and leases, of one tenant or of all, for Prometheus.

Each function is one query, however many jobs there are.
"""

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from service.db.kinds import EMBED_SHARDS, IMPORT, INDEX, INGEST
from service.db.models import Dataset, Job, Retried
from service.db.session import now
from service.db.statuses import HELD, TERMINAL, JobStatus
from ssl_core.config import KINDS

QUEUE_OF_KIND = {**dict.fromkeys((*KINDS, EMBED_SHARDS), "train"), **dict.fromkeys((IMPORT, INDEX, INGEST), "data")}
RETRIED = "retried"  # outcome of an attempt that was followed by another


@dataclass(frozen=True, slots=True)
class Queued:
    """Queued jobs of one kind; `oldest_seconds` is how long the oldest has been queued, 0 when there is none."""

    jobs: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Leases:
    """Leases of running jobs of one kind; `heartbeat_seconds` is the age of the oldest last heartbeat among them."""

    expired: int = 0
    heartbeat_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts by label; kinds without a job are counted as 0."""

    jobs: dict[tuple[str, str], int]  # (kind, status)
    ended: dict[tuple[str, str], int]  # (kind, terminal status)
    attempts: dict[tuple[str, str], int]  # (kind, RETRIED or terminal status)
    datasets: dict[str, int]  # status
    queued: dict[str, Queued]  # kind
    leases: dict[str, Leases]  # kind


def count(session: Session, tenant_id: str | None, lease_seconds: float) -> Counts:
    """Return the counts of a tenant, or of all for None. lease_seconds: of a heartbeat, by the settings."""
    counted, retried = _count_jobs(session, tenant_id), _count_retried(session, tenant_id)
    jobs = {labels: row.kept for labels, row in counted.items()}
    ends = Counter({labels: row.jobs for labels, row in counted.items()}) + Counter(
        {labels: row[0] for labels, row in retried.items()}
    )
    attempts = Counter(_sum_attempts(counted)) + Counter({labels: row[1] for labels, row in retried.items()})
    return Counts(
        jobs=jobs,
        ended={(kind, status): ends[kind, status] for kind in QUEUE_OF_KIND for status in TERMINAL},
        attempts={
            (kind, outcome): attempts[kind, outcome] for kind in QUEUE_OF_KIND for outcome in (RETRIED, *TERMINAL)
        },
        datasets=_count_datasets(session, tenant_id),
        queued={kind: _to_queued(kind, counted.get((kind, JobStatus.QUEUED))) for kind in QUEUE_OF_KIND},
        leases=_count_leases(session, tenant_id, lease_seconds),
    )


@dataclass(frozen=True, slots=True)
class _Jobs:
    """Jobs of one kind and status. `kept` are not deleted; `begun` have had an attempt; `retried` is the sum of their
    attempts but the last."""

    jobs: int
    kept: int
    begun: int
    retried: int
    oldest_seconds: float | None


def _count_jobs(session: Session, tenant_id: str | None) -> dict[tuple[str, str], _Jobs]:
    """Groups are formed in the order of the index, which has all columns, and then added up over the tenants."""
    groups = select(
        Job.kind,
        Job.status,
        func.count().label("jobs"),
        func.count(case((Job.deleted_at.is_(None), 1))).label("kept"),
        func.count(case((Job.attempt > 0, 1))).label("begun"),
        func.sum(case((Job.attempt > 1, Job.attempt - 1), else_=0)).label("retried"),
        func.min(Job.queued_at).label("queued_at"),
    ).group_by(Job.tenant_id, Job.kind, Job.status)
    groups = groups if tenant_id is None else groups.where(Job.tenant_id == tenant_id)
    of = groups.subquery("groups").c
    sums = (func.sum(of.jobs), func.sum(of.kept), func.sum(of.begun), func.sum(of.retried))
    query = select(of.kind, of.status, *sums, now() - func.min(of.queued_at)).group_by(of.kind, of.status)
    return {
        (row[0], row[1]): _Jobs(int(row[2]), int(row[3]), int(row[4]), int(row[5]), row[6])
        for row in session.execute(query)
    }


def _count_retried(session: Session, tenant_id: str | None) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the ends of jobs, and of attempts, that are those of jobs which were retried, by kind and status."""
    query = select(Retried.kind, Retried.status, func.sum(Retried.jobs), func.sum(Retried.attempts))
    query = query if tenant_id is None else query.where(Retried.tenant_id == tenant_id)
    rows = session.execute(query.group_by(Retried.kind, Retried.status))
    return {(row[0], row[1]): (int(row[2]), int(row[3])) for row in rows}


def _sum_attempts(counted: dict[tuple[str, str], _Jobs]) -> dict[tuple[str, str], int]:
    """Return the attempts that have ended by kind and outcome.

    An attempt counts as retried once the next has begun; the last one has the outcome of its job, and keeps it when the
    job is retried on request. So no count falls.
    """
    attempts = {(kind, outcome): 0 for kind in QUEUE_OF_KIND for outcome in (RETRIED, *TERMINAL)}
    for (kind, status), row in counted.items():
        if (kind, RETRIED) in attempts:
            attempts[kind, RETRIED] += row.retried
            if status in TERMINAL:
                attempts[kind, status] += row.begun
    return attempts


def _to_queued(kind: str, row: _Jobs | None) -> Queued:
    if row is None:
        return Queued()
    waits = kind != EMBED_SHARDS  # the job that such a one shares runs without it
    return Queued(row.jobs, max(0.0, float(row.oldest_seconds or 0)) if waits else 0.0)


def _count_datasets(session: Session, tenant_id: str | None) -> dict[str, int]:
    query = select(Dataset.status, func.count()).where(Dataset.deleted_at.is_(None)).group_by(Dataset.status)
    query = query if tenant_id is None else query.where(Dataset.tenant_id == tenant_id)
    return {row[0]: row[1] for row in session.execute(query)}


def _count_leases(session: Session, tenant_id: str | None, lease_seconds: float) -> dict[str, Leases]:
    """A heartbeat renews the lease for `lease_seconds`, from which its time follows.

    All running jobs are read, which are few, by the index on status; for one tenant, databases prefer a longer one.
    """
    query = select(
        Job.kind, Job.tenant_id, func.count(case((Job.lease_until < now(), 1))), now() - func.min(Job.lease_until)
    ).where(Job.status.in_(HELD), Job.lease_until.is_not(None))
    found = dict.fromkeys(QUEUE_OF_KIND, Leases())
    for kind, owner, expired, overdue in session.execute(query.group_by(Job.kind, Job.tenant_id)):
        if tenant_id in (None, owner):
            before = found.get(kind, Leases())
            age = max(before.heartbeat_seconds, float(overdue) + lease_seconds)
            found[kind] = Leases(before.expired + expired, age)
    return found
