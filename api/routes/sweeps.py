"""Routes of /sweeps: start, show, pause, resume, cancel and delete sweeps, and list their trials."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api import responses, schemas, serializers
from api.deps import Caller, ReadCaller, SettingsDep, TrainCaller, UnitOfWork
from api.idempotency import Created, Idempotent
from api.json_body import JsonRoute
from api.parameters import filters
from api.parameters.cursor import After
from api.responses import JSONResponse
from api.routes.jobs import find_kind, parse_config
from service.audit import Action
from service.db.models import Sweep
from service.db.statuses import SweepStatus
from service.errors import InvalidConfig, InvalidRequest
from service.quotas import checks
from service.sweeps import control, registry
from service.sweeps.registry import Goal, Plan
from service.sweeps.space import MAX_TRIALS, Params, SpaceError, apply, check_size, expand, locate
from ssl_core.config import RunConfig, metric_names
from ssl_core.errors import Fault, json_pointer

router = APIRouter(tags=["sweeps"], route_class=JsonRoute)


@router.post("/sweeps", status_code=202, response_model=schemas.Sweep, summary="Start a sweep")
def create(body: schemas.NewSweep, caller: TrainCaller, respond: Idempotent, settings: SettingsDep) -> JSONResponse:
    """Submit a job for each combination of values, or for random draws, at most `parallel` at a time.

    Every config is checked before the first job is submitted.
    """
    plan = _plan(body)

    def create_sweep(unit: UnitOfWork) -> Created:
        checks.check_jobs(unit.session, unit.tenant_id, "train", settings)
        checks.check_bytes(unit.session, unit.tenant_id, settings)
        fields = body.model_dump(include={"model", "name", "priority", "metadata", "max_runtime"})
        sweep = registry.create(unit.session, unit.tenant_id, body.dataset, plan, **fields)
        unit.record("sweep.create", sweep.id, kind=sweep.kind, dataset=sweep.dataset_id, trials=len(plan.trials))
        return Created(_serialize(unit, sweep), f"/sweeps/{sweep.id}")

    with caller.writing() as unit:
        return respond(unit, body.model_dump(exclude_unset=True), create_sweep, 202)


@router.get("/sweeps", response_model=schemas.SweepList, summary="List sweeps, newest first")
def list_(
    caller: ReadCaller,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    status: Annotated[str | None, filters.one_of(SweepStatus)] = None,
    dataset: Annotated[str | None, Query(max_length=64, description="Of this dataset.")] = None,
) -> JSONResponse:
    filters.check("status", status, [*SweepStatus])
    with caller.reading() as unit:
        page = registry.list_(unit.session, unit.tenant_id, after, limit, status=status, dataset=dataset)
        summaries = registry.summarize(unit.session, page.items)
        shown = [serializers.sweep(sweep, summaries[sweep.id]) for sweep in page.items]
        return responses.page(shown, page.has_more, page.next)


@router.get("/sweeps/{sweep_id}", response_model=schemas.Sweep, summary="Show a sweep")
def show(sweep_id: str, caller: ReadCaller) -> JSONResponse:
    with caller.reading() as unit:
        return JSONResponse(_serialize(unit, registry.get(unit.session, unit.tenant_id, sweep_id)))


@router.get("/sweeps/{sweep_id}/trials", response_model=schemas.TrialList, summary="List a sweep's trials")
def trials(
    sweep_id: str,
    caller: ReadCaller,
    after: Annotated[int, Query(ge=-1, lt=MAX_TRIALS, description="`next` of the previous page.")] = -1,
    limit: Annotated[int, Query(ge=1, le=MAX_TRIALS)] = 100,
) -> JSONResponse:
    """By number: in the order in which they are started."""
    with caller.reading() as unit:
        sweep = registry.get(unit.session, unit.tenant_id, sweep_id)
        found, has_more = registry.list_trials(unit.session, sweep, after, limit)
        data: list[dict[str, Any]] = [serializers.trial(sweep, row) for row in found]
        return responses.page(data, has_more, found[-1].number if has_more else None)


@router.post("/sweeps/{sweep_id}/pause", response_model=schemas.Sweep, summary="Pause a sweep")
def pause(sweep_id: str, caller: TrainCaller) -> JSONResponse:
    """Its running jobs are paused, after a checkpoint, and no others are started. Idempotent."""
    return _control(caller, "sweep.pause", lambda unit: control.pause(unit.session, unit.tenant_id, sweep_id))


@router.post("/sweeps/{sweep_id}/resume", response_model=schemas.Sweep, summary="Resume a paused sweep")
def resume(sweep_id: str, caller: TrainCaller) -> JSONResponse:
    """Its jobs go on from their last checkpoints, and others are started. Idempotent."""
    return _control(caller, "sweep.resume", lambda unit: control.resume(unit.session, unit.tenant_id, sweep_id))


@router.post("/sweeps/{sweep_id}/cancel", response_model=schemas.Sweep, summary="Cancel a sweep")
def cancel(sweep_id: str, caller: TrainCaller) -> JSONResponse:
    """Its jobs that have not ended are cancelled. Idempotent, and without effect on a sweep that has ended."""
    return _control(caller, "sweep.cancel", lambda unit: control.cancel(unit.session, unit.tenant_id, sweep_id))


@router.delete("/sweeps/{sweep_id}", status_code=204, response_class=Response, summary="Delete a sweep")
def delete(sweep_id: str, caller: TrainCaller) -> Response:
    """Its jobs stay; those that have not ended are cancelled."""
    with caller.writing() as unit:
        control.delete(unit.session, unit.tenant_id, sweep_id)
        unit.queues.add("train")
        unit.record("sweep.delete", sweep_id)
    return Response(status_code=204)


def _plan(body: schemas.NewSweep) -> Plan:
    """Return the plan of the body. Raises UnknownKind, InvalidRequest, InvalidConfig."""
    metric = _find_metric(body.kind, body.metric)
    trials = []
    try:
        params = expand(body.space, body.search, body.trials, body.seed)
        check_size(body.config, params)
        for each in params:
            trials.append((each, _parse_trial(body.kind, apply(body.config, each), each)))
    except SpaceError as error:
        pointer = "/space" if error.field is None else json_pointer("space", error.field)
        raise InvalidRequest(
            f"{pointer}: {error.detail}", errors=[Fault(pointer=pointer, code=error.code, detail=error.detail)]
        ) from error
    return Plan(
        kind=body.kind,
        config=body.config,
        space={pointer: choices.model_dump(exclude_unset=True) for pointer, choices in body.space.items()},
        search={"search": body.search, "trials": len(params), "seed": body.seed},
        trials=trials,
        parallel=body.parallel,
        metric=metric,
        goal=body.goal or _find_goal(metric),
        pruner=body.pruner.model_dump() if body.pruner is not None else None,
    )


def _find_metric(name: str, metric: str | None) -> str:
    """Return the metric, or that of the kind's accuracy. Raises UnknownKind, InvalidRequest."""
    kind = find_kind(name)
    filters.check("/metric", metric, metric_names.list_known(), "metric")
    found = metric or kind.accuracy_metric
    if found is None or not kind.reports(found):
        what = f"the metric {found}" if found else "metrics"
        detail = f"Jobs of the kind {name} do not report {what}."
        raise InvalidRequest(detail, errors=[Fault(pointer="/metric", code="not_reported", detail=detail)])
    return found


def _parse_trial(kind: str, config: dict[str, Any], params: Params) -> RunConfig:
    """Return the config of a trial; a fault in a field of the space is said to be there, with the value."""
    try:
        return parse_config(kind, config)
    except InvalidConfig as error:
        faults = [locate(fault, params) for fault in error.errors]
        raise InvalidConfig(
            "; ".join(f"{fault['pointer']}: {fault['detail']}" for fault in faults[:3]), errors=faults
        ) from error


def _find_goal(metric: str) -> Goal:
    return "minimize" if metric.endswith("/loss") else "maximize"


def _serialize(unit: UnitOfWork, sweep: Sweep) -> dict[str, Any]:
    return serializers.sweep(sweep, registry.summarize(unit.session, [sweep])[sweep.id])


def _control(caller: Caller, action: Action, act: Callable[[UnitOfWork], Sweep]) -> JSONResponse:
    with caller.writing() as unit:
        sweep = act(unit)
        unit.queues.add("train")
        unit.record(action, sweep.id, status=sweep.status)
        return JSONResponse(_serialize(unit, sweep))
