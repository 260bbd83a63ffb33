"""Jobs side by side: their summaries and metrics, and the fields in which their configs differ."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service import metrics
from service.comparison import differences
from service.comparison.differences import Difference
from service.db import ids
from service.db.models import Job, Model, Series
from service.errors import JobNotFound
from service.jobs import owned_by
from service.metrics import Column
from ssl_core.errors import Fault

MAX_JOBS = 20
MAX_POINTS = 200_000  # of all jobs and series together
DEFAULT_POINTS = 200  # of each series


@dataclass(frozen=True, slots=True)
class ComparedJob:
    """A job with its series; `method` is that of its config, or of its input model."""

    row: Job
    method: str | None
    series: Sequence[Column]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Jobs in the order that was asked for, and the differences of their resolved configs by job id."""

    jobs: Sequence[ComparedJob]
    differences: Sequence[Difference]


def find(session: Session, tenant_id: str, job_ids: Sequence[str]) -> list[Job]:
    """Return the tenant's jobs of these ids, in their order. Raises JobNotFound, which names those that are missing."""
    query = select(Job).where(owned_by(tenant_id), Job.id.in_([each for each in job_ids if ids.is_valid(each)]))
    found = {row.id: row for row in session.scalars(query)}
    if missing := [job_id for job_id in job_ids if job_id not in found]:
        details = [f"There is no job {job_id[:64]}." for job_id in missing]
        faults = [Fault(pointer="ids", code="job_not_found", detail=detail) for detail in details]
        raise JobNotFound(details[0], errors=faults)
    return [found[job_id] for job_id in job_ids]


def compare(
    session: Session,
    jobs: Sequence[Job],
    names: Collection[str] | None = None,
    max_points: int = DEFAULT_POINTS,
) -> Comparison:
    """Return the jobs side by side, with all their series or those named.

    max_points: of each series; fewer when all of them together would have more than MAX_POINTS.
    """
    count = _count_series(session, [job.id for job in jobs], names)
    limit = max(2, min(max_points, MAX_POINTS // max(1, count)))
    methods = _find_methods(session, jobs)
    compared = [
        ComparedJob(job, methods.get(job.id), metrics.query(session, job, names, 0, limit)["series"]) for job in jobs
    ]
    return Comparison(compared, differences.find({job.id: job.resolved or job.config for job in jobs}))


def _count_series(session: Session, job_ids: Sequence[str], names: Collection[str] | None) -> int:
    query = select(func.count()).select_from(Series).where(Series.job_id.in_(job_ids))
    query = query if names is None else query.where(Series.name.in_(names))
    return session.execute(query).scalar_one()


def _find_methods(session: Session, jobs: Sequence[Job]) -> dict[str, str | None]:
    """Return the name of the method of each job, or of its input model."""
    model_ids = {job.model_id for job in jobs if job.model_id is not None}
    query = select(Model.id, Model.card["method"].as_string()).where(Model.id.in_(model_ids))
    of_models: dict[str | None, str | None] = {row[0]: row[1] for row in session.execute(query)}
    return {job.id: _get_method(job.config) or of_models.get(job.model_id) for job in jobs}


def _get_method(config: dict[str, Any]) -> str | None:
    method = config.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    return name if isinstance(name, str) else None
