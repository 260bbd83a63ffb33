"""Progress of sweeps, made by the keeper: trials that have ended are noted, others stopped early or started, and a
sweep ends with its last trial.

Each step is one transaction in which the sweep's row is locked: a job and the trial that it is are written together, so
that a keeper that is killed, or several at once, neither lose a trial nor start it twice. The tenant's row is locked
before the sweep's, and this one before those of its jobs.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from service import jobs, lifecycle, text
from service.db.models import Job, Json, Point, Series, Sweep, Trial
from service.db.session import clock
from service.db.statuses import ACTIVE, TERMINAL, JobStatus, SweepStatus
from service.errors import Error, JobQuotaExceeded, StorageQuotaExceeded
from service.quotas import checks
from service.settings import Settings
from service.sweeps import registry
from service.sweeps.space import apply
from ssl_core import config as run_config

Report = tuple[int, float | None]  # an epoch, and the last value in it; None: not finite
_SUFFIX = 6  # characters of a job's name for the number of its trial
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reported:
    """A trial as a pruner sees it. status: of its job, or None before it was started."""

    number: int
    status: str | None
    is_pruned: bool
    is_kept: bool  # whatever the pruner finds: a client has retried it
    value: float | None
    reports: list[Report]
    state: Json | None  # what the pruner has noted of it


Prune = Callable[[Sweep, Sequence[Reported], dict[int, list[Report]]], dict[int, int]]
"""Given a sweep, its trials and their new reports by number: adds these to the trials, updates each `state`, and
returns the numbers of the trials to stop, each with the epoch at which that was decided."""


def list_due(session: Session) -> list[str]:
    """Return the ids of the sweeps in which a job has ended or may be started, and of all that have a pruner."""
    is_open = and_(Trial.job_id.is_not(None), Trial.ended_at.is_(None))
    counts = (
        select(
            Trial.sweep_id,
            func.count().filter(is_open).label("open"),
            func.count().filter(is_open, Job.status.in_(TERMINAL)).label("ended"),
            func.count().filter(Trial.job_id.is_(None), Trial.ended_at.is_(None)).label("planned"),
        )
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .outerjoin(Job, Job.id == Trial.job_id)
        .where(Sweep.status.in_(ACTIVE))
        .group_by(Trial.sweep_id)
        .subquery()
    )
    may_start = and_(Sweep.status == SweepStatus.RUNNING, counts.c.planned > 0, counts.c.open < Sweep.parallel)
    is_over = and_(counts.c.open == 0, counts.c.planned == 0)
    query = select(Sweep.id).join(counts, counts.c.sweep_id == Sweep.id)
    due = or_(counts.c.ended > 0, may_start, is_over, Sweep.pruner.is_not(None))
    return [*session.scalars(query.where(due).order_by(Sweep.id))]


def advance(session: Session, sweep_id: str, settings: Settings, prune: Prune) -> bool:
    """Bring a sweep forward; return whether a job was queued. Without effect while another keeper does so."""
    tenant_id = session.scalars(select(Sweep.tenant_id).where(Sweep.id == sweep_id)).one()
    checks.lock(session, tenant_id)
    query = select(Sweep).where(Sweep.id == sweep_id, Sweep.status.in_(ACTIVE))
    query = query.with_for_update(key_share=True, skip_locked=True).execution_options(populate_existing=True)
    sweep = session.scalars(query).one_or_none()
    if sweep is None:
        return False
    trials = session.scalars(select(Trial).where(Trial.sweep_id == sweep.id).order_by(Trial.number)).all()
    statuses = _read_statuses(session, sweep)
    ended = _note_ends(session, sweep, trials, statuses)
    if sweep.pruner is not None:
        _prune(session, sweep, trials, statuses, ended, prune)
    has_started = sweep.status == SweepStatus.RUNNING and _start(session, sweep, trials, settings)
    if all(trial.ended_at is not None for trial in trials):
        _end(session, sweep)
    session.flush()
    return has_started


def note_ends(session: Session, sweep: Sweep) -> None:
    """Note the value of each trial whose job has ended. The caller has locked the sweep."""
    query = select(Trial).where(Trial.sweep_id == sweep.id, Trial.job_id.is_not(None), Trial.ended_at.is_(None))
    _note_ends(session, sweep, session.scalars(query).all(), _read_statuses(session, sweep))


def _read_statuses(session: Session, sweep: Sweep) -> dict[str, str]:
    """Return the status of each job of the sweep, by its id."""
    return dict(session.execute(select(Job.id, Job.status).where(Job.sweep_id == sweep.id)).all())


def _note_ends(session: Session, sweep: Sweep, trials: Iterable[Trial], statuses: dict[str, str]) -> set[int]:
    """Note the value of each trial whose job has ended; return the numbers of these trials."""
    ended = set()
    for trial in trials:
        if trial.job_id is not None and trial.ended_at is None and statuses[trial.job_id] in TERMINAL:
            trial.value, trial.ended_at = _read_last_value(session, trial.job_id, sweep.metric), clock(session)
            ended.add(trial.number)
    return ended


def _read_last_value(session: Session, job_id: str, metric: str) -> float | None:
    query = select(Point.value).join(Series, (Series.id == Point.series_id) & (Series.last_seq == Point.seq))
    return session.execute(query.where(Series.job_id == job_id, Series.name == metric)).scalar_one_or_none()


def _prune(
    session: Session,
    sweep: Sweep,
    trials: Sequence[Trial],
    statuses: dict[str, str],
    ended: set[int],
    prune: Prune,
) -> None:
    """Show the pruner what trials have newly reported, and cancel the jobs of those that it stops."""
    fresh = {}
    for trial in trials:
        if trial.job_id is not None and (trial.ended_at is None or trial.number in ended):
            reports = _read_reports(session, trial, sweep.metric, has_ended=trial.number in ended)
            if reports:
                fresh[trial.number] = reports
    if not fresh:
        return
    shown = [_show(trial, statuses) for trial in trials]
    stopped = prune(sweep, shown, fresh)
    for trial, reported in zip(trials, shown, strict=True):
        if trial.number in fresh:
            trial.reports = [[epoch, value] for epoch, value in reported.reports]
            trial.pruner_state = reported.state
        if trial.number in stopped and trial.job_id is not None:
            _stop(session, sweep, trial, trial.job_id, stopped[trial.number])


def _show(trial: Trial, statuses: dict[str, str]) -> Reported:
    return Reported(
        number=trial.number,
        status=None if trial.job_id is None else statuses[trial.job_id],
        is_pruned=trial.pruned_at is not None,
        is_kept=trial.retried_at is not None,
        value=trial.value,
        reports=[(epoch, value) for epoch, value in trial.reports],
        state=trial.pruner_state,
    )


def _stop(session: Session, sweep: Sweep, trial: Trial, job_id: str, epoch: int) -> None:
    job = jobs.lock(session, sweep.tenant_id, job_id)
    if job.status in (*TERMINAL, JobStatus.CANCELLING):
        return
    trial.pruned_at = clock(session)
    name = (sweep.pruner or {}).get("name")
    message = f"Trial {trial.number} of {sweep.id} is stopped early, at epoch {epoch}, by the pruner {name}."
    lifecycle.append_event(session, job, "info", "pruned", message, {"sweep": sweep.id, "epoch": epoch})
    lifecycle.cancel(session, job)


def _read_reports(session: Session, trial: Trial, metric: str, *, has_ended: bool) -> list[Report]:
    """Return the epochs that the trial has completed since its last report, with the last value in each.

    A point belongs to the epoch that it lies in or ends; an epoch is complete once a point ends it or lies behind it.
    """
    last = trial.reports[-1][0] if trial.reports else 0
    query = select(Point.epoch, Point.value).join(Series, Series.id == Point.series_id)
    query = query.where(Series.job_id == trial.job_id, Series.name == metric, Point.epoch > last).order_by(Point.seq)
    values: dict[int, float | None] = {}
    furthest = 0.0
    for epoch, value in session.execute(query):
        values[-int(-epoch // 1)] = value
        furthest = max(furthest, epoch)
    return [(epoch, value) for epoch, value in values.items() if has_ended or epoch <= furthest]


def _start(session: Session, sweep: Sweep, trials: Iterable[Trial], settings: Settings) -> bool:
    """Submit the jobs of as many planned trials as may run at once; return whether there was any."""
    running = sum(trial.job_id is not None and trial.ended_at is None for trial in trials)
    has_started = False
    for trial in trials:
        if running >= sweep.parallel:
            break
        if trial.job_id is None and trial.ended_at is None:
            try:
                checks.check_jobs(session, sweep.tenant_id, "train", settings)
                checks.check_bytes(session, sweep.tenant_id, settings)
            except (JobQuotaExceeded, StorageQuotaExceeded) as error:
                sweep.status_detail = f"Waits to start trial {trial.number}: {error.detail}"
                break
            if _submit(session, sweep, trial):
                has_started = True
                running += 1
                sweep.status_detail = f"Trial {trial.number} was started."
    return has_started


def _submit(session: Session, sweep: Sweep, trial: Trial) -> bool:
    """Submit the job of a trial; return whether it could be. If not, the trial ends with the error."""
    try:
        config = run_config.parse(apply(sweep.config, trial.params), sweep.kind)
        job = jobs.submit(
            session,
            sweep.tenant_id,
            sweep.dataset_id,
            config,
            model=sweep.model_id or sweep.parent_id,
            name=f"{(sweep.name or sweep.id)[: text.MAX_LINE - _SUFFIX]} {trial.number}",
            priority=sweep.priority,
            metadata=sweep.user_metadata,
            max_runtime=sweep.max_runtime,
            sweep=sweep.id,
        )
    except (Error, ValidationError) as error:
        code, detail = (error.code, error.detail) if isinstance(error, Error) else ("invalid_config", str(error))
        trial.error, trial.ended_at = {"code": code, "detail": text.clean(detail, 1000)}, clock(session)
        _log.warning("Trial %d of %s could not be submitted: %s", trial.number, sweep.id, detail)
        return False
    trial.job_id = job.id
    session.flush()
    return True


def _end(session: Session, sweep: Sweep) -> None:
    session.flush()
    best = registry.summarize(session, [sweep])[sweep.id].best
    sweep.finished_at = clock(session)
    if best is not None:
        sweep.status = SweepStatus.SUCCEEDED
        sweep.status_detail = f"The best {sweep.metric} is {best.value:.6g}, of trial {best.number}."
    else:
        detail = f"No trial has succeeded with a value of {sweep.metric}."
        sweep.status, sweep.status_detail = SweepStatus.FAILED, detail
        sweep.error = {"code": "no_value", "detail": detail}
