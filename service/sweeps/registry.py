"""The registry of sweeps: create, get, list and delete; their trials, and the best of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, case, func, select
from sqlalchemy.orm import Session

from service import compatibility, datasets, jobs, models, text
from service.db import ids
from service.db.models import Job, Json, Sweep, Trial
from service.db.pagination import Page, newest_first
from service.db.session import clock
from service.db.statuses import ACTIVE, TERMINAL, JobStatus, SweepStatus
from service.errors import Error, ModelNeeded, SweepNotFound, TooManySweeps
from service.sweeps.space import Params, locate
from ssl_core.config import RunConfig
from ssl_core.errors import Fault

Goal = Literal["maximize", "minimize"]
MAX_PARALLEL = 100
MAX_ACTIVE = 50  # of an owner
STATES = ("planned", "running", "succeeded", "failed", "pruned", "cancelled")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep does, as a client has asked for it. `trials` are the parameters of each, and its checked config."""

    kind: str
    config: Json
    space: Json
    search: Json
    trials: Sequence[tuple[Params, RunConfig]]
    parallel: int
    metric: str
    goal: Goal
    pruner: Json | None


def create(
    session: Session,
    tenant_id: str,
    dataset_id: str,
    plan: Plan,
    *,
    model: str | None = None,
    name: str | None = None,
    priority: int = 0,
    metadata: Mapping[str, str] | None = None,
    max_runtime: int | None = None,
) -> Sweep:
    """Create a sweep, whose first trials the keeper starts within seconds.

    Every trial is checked as `jobs.submit` checks a job: raises what that does, for the first trial at fault, and
    TooManySweeps.
    """
    active = select(func.count()).select_from(Sweep).where(_owned_by(tenant_id), Sweep.status.in_(ACTIVE))
    if session.execute(active).scalar_one() >= MAX_ACTIVE:
        raise TooManySweeps(f"There are {MAX_ACTIVE} sweeps that have not ended; cancel one or wait.")
    dataset = datasets.get_ready(session, tenant_id, dataset_id, lock=True)
    source = models.find_source(session, tenant_id, model) if model is not None else models.Source(None, None)
    card = models.get_card(session, source.model_id) if source.model_id is not None else None
    for params, config in plan.trials:
        if model is None and config.needs_model:
            detail = f"A job of the kind {config.kind} needs a model."
            raise ModelNeeded(errors=[Fault(pointer="/model", code="model_needed", detail=detail)])
        try:
            compatibility.check_dataset(dataset, config)
            if card is not None:
                compatibility.check_model(card, config, dataset)
        except Error as error:
            error.errors = [locate(fault, params) for fault in error.errors]
            raise
    sweep = Sweep(
        id=ids.new("swp"),
        tenant_id=tenant_id,
        name=text.check_line(name, "/name") if name is not None else None,
        status=SweepStatus.RUNNING,
        status_detail=f"Starts {len(plan.trials)} trials.",
        kind=plan.kind,
        dataset_id=dataset.id,
        model_id=source.model_id,
        parent_id=source.parent_id,
        config=text.clean_json(plan.config),  # a field that every trial replaces was not checked
        space=text.clean_json(plan.space),
        search=plan.search,
        parallel=plan.parallel,
        metric=plan.metric,
        goal=plan.goal,
        pruner=plan.pruner,
        priority=jobs.check_priority(priority),
        max_runtime=max_runtime,
        user_metadata=text.check_metadata(metadata or {}),
        created_at=clock(session),
    )
    session.add(sweep)
    session.flush()
    session.add_all(
        Trial(sweep_id=sweep.id, number=number, params=params, reports=[])
        for number, (params, _) in enumerate(plan.trials)
    )
    session.flush()
    return sweep


def get(session: Session, tenant_id: str, sweep_id: str) -> Sweep:
    """Return the tenant's sweep. Raises SweepNotFound."""
    return _select_one(session, tenant_id, sweep_id, lock=False)


def lock(session: Session, tenant_id: str, sweep_id: str) -> Sweep:
    """Return what `get` does, its row locked until the commit: before those of its jobs. Raises SweepNotFound."""
    return _select_one(session, tenant_id, sweep_id, lock=True)


def list_(
    session: Session,
    tenant_id: str,
    after: str | None = None,
    limit: int = 20,
    *,
    status: str | None = None,
    dataset: str | None = None,
) -> Page[Sweep]:
    """Return the tenant's sweeps, newest first."""
    query = select(Sweep).where(_owned_by(tenant_id))
    if status is not None:
        query = query.where(Sweep.status == status)
    if dataset is not None:
        query = query.where(Sweep.dataset_id == (dataset if ids.is_valid(dataset) else ""))
    return newest_first(session, query, Sweep.id, after, limit)


# sweep_id, number, params, pruned_at, value, error, job_id; of the job: status, model_id
ShownTrial: TypeAlias = Row[*tuple[Any, ...]]


def list_trials(session: Session, sweep: Sweep, after: int = -1, limit: int = 1000) -> tuple[list[ShownTrial], bool]:
    """Return the trials behind the one of the number `after`, and whether there are more."""
    query = _SELECT_TRIALS.where(Trial.sweep_id == sweep.id, Trial.number > after)
    rows: Sequence[ShownTrial] = session.execute(query.order_by(Trial.number).limit(limit + 1)).all()
    return [*rows[:limit]], len(rows) > limit


def find_state(sweep: Sweep, trial: ShownTrial) -> str:
    """Return which of STATES a trial is in."""
    if trial.job_id is None:
        planned = "planned" if sweep.status in ACTIVE else "cancelled"
        return "failed" if trial.error is not None else planned
    if trial.status not in TERMINAL:
        return "running"
    return "pruned" if trial.status == JobStatus.CANCELLED and trial.pruned_at is not None else str(trial.status)


@dataclass(frozen=True, slots=True)
class Summary:
    """How many trials are in each state, and the best of those that have succeeded, if there is one."""

    counts: dict[str, int]
    best: ShownTrial | None


def summarize(session: Session, sweeps: Sequence[Sweep]) -> dict[str, Summary]:
    """Return a summary of each sweep, by its id."""
    by_id = {sweep.id: sweep for sweep in sweeps}
    counts = {sweep_id: dict.fromkeys(STATES, 0) for sweep_id in by_id}
    for row in session.execute(_COUNT_TRIALS.where(Trial.sweep_id.in_(by_id))):
        counts[row.sweep_id][find_state(by_id[row.sweep_id], row)] += row.trials
    best = {row.sweep_id: row for row in session.execute(_SELECT_BEST, {"sweeps": [*by_id]})}
    return {sweep_id: Summary(counts[sweep_id], best.get(sweep_id)) for sweep_id in by_id}


def _select_one(session: Session, tenant_id: str, sweep_id: str, *, lock: bool) -> Sweep:
    if not ids.is_valid(sweep_id):
        raise SweepNotFound
    query = select(Sweep).where(_owned_by(tenant_id), Sweep.id == sweep_id)
    if lock:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    sweep = session.scalars(query).one_or_none()
    if sweep is None:
        raise SweepNotFound
    return sweep


def _owned_by(tenant_id: str) -> ColumnElement[bool]:
    return and_(Sweep.tenant_id == tenant_id, Sweep.deleted_at.is_(None))


_SELECT_TRIALS: Select[*tuple[Any, ...]] = select(
    Trial.sweep_id,
    Trial.number,
    Trial.params,
    Trial.pruned_at,
    Trial.value,
    Trial.error,
    Trial.job_id,
    Job.status,
    Job.made_model_id.label("model_id"),
).outerjoin(Job, Job.id == Trial.job_id)
_COUNT_TRIALS: Select[*tuple[Any, ...]] = (  # by all that `find_state` reads
    select(
        Trial.sweep_id,
        func.max(Trial.job_id).label("job_id"),
        Job.status,
        func.max(Trial.pruned_at).label("pruned_at"),
        func.max(case((Trial.error.is_not(None), 1))).label("error"),
        func.count().label("trials"),
    )
    .outerjoin(Job, Job.id == Trial.job_id)
    .group_by(Trial.sweep_id, Job.status, Trial.pruned_at.is_(None), Trial.error.is_(None))
)
_RANK = func.row_number().over(
    partition_by=Trial.sweep_id,
    order_by=(case((Sweep.goal == "minimize", Trial.value), else_=-Trial.value), Trial.number),
)
_RANKED = (
    select(Trial.sweep_id, Trial.number, _RANK.label("rank"))
    .join(Sweep, Sweep.id == Trial.sweep_id)
    .join(Job, Job.id == Trial.job_id)
    .where(Trial.sweep_id.in_(bindparam("sweeps", expanding=True)))
    .where(Trial.value.is_not(None), Job.status == JobStatus.SUCCEEDED)
    .subquery()
)
_SELECT_BEST = _SELECT_TRIALS.join(
    _RANKED, and_(_RANKED.c.sweep_id == Trial.sweep_id, _RANKED.c.number == Trial.number)
).where(_RANKED.c.rank == 1)
