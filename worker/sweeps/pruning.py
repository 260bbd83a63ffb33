"""Pruning by Optuna: a study in memory is built of a sweep's trials as the database has them, and its pruner asked.

An epoch is a step of Optuna's. What a pruner notes of a trial, such as the rungs of successive halving, is kept with
it.
"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from service.db.models import Json, Sweep
from service.db.statuses import TERMINAL, JobStatus
from service.sweeps.progress import Report, Reported

optuna.logging.set_verbosity(optuna.logging.WARNING)


def prune(sweep: Sweep, trials: Sequence[Reported], fresh: dict[int, list[Report]]) -> dict[int, int]:
    """See `service.sweeps.progress.Prune`."""
    pruner = build(sweep.pruner or {})
    study = optuna.create_study(direction=StudyDirection[sweep.goal.upper()], pruner=pruner, study_name=sweep.id)
    waiting = []
    for number, reports in fresh.items():
        if trials[number].status in TERMINAL:  # others are compared with it at once
            trials[number].reports.extend(reports)
        else:
            waiting += [(epoch, number, value) for epoch, value in reports]
    for trial in trials:
        study.add_trial(_freeze(trial))
    stopped: dict[int, int] = {}
    for epoch, number, value in sorted(waiting, key=lambda report: report[:2]):
        trial = trials[number]
        trial.reports.append((epoch, value))
        if trial.is_pruned or trial.is_kept or number in stopped:
            continue
        frozen = copy.copy(study.get_trials(deepcopy=False)[number])
        frozen.intermediate_values = _to_values(trial.reports)
        if pruner.prune(study, frozen):
            stopped[number] = epoch
    known = study.get_trials(deepcopy=False)
    for number in fresh:
        trials[number].state = dict(known[number].system_attrs) or None
    return stopped


def build(options: Json) -> BasePruner:
    """Return the pruner of the options, of `service.sweeps.pruners`."""
    fields = {name: value for name, value in options.items() if name not in ("name", "patience")}
    pruner: BasePruner = _BUILDERS[options["name"]](**fields)
    patience = options.get("patience")
    if patience is None:
        return pruner
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.PatientPruner(pruner, patience)


def _freeze(trial: Reported) -> FrozenTrial:
    state = TrialState.WAITING if trial.status is None else _STATES.get(trial.status, TrialState.RUNNING)
    if trial.is_pruned and state == TrialState.FAIL:
        state = TrialState.PRUNED
    if state == TrialState.COMPLETE and trial.value is None:
        state = TrialState.FAIL
    return optuna.trial.create_trial(
        state=state,
        value=trial.value if state == TrialState.COMPLETE else None,
        intermediate_values=_to_values(trial.reports),
        system_attrs=dict(trial.state or {}),
    )


def _to_values(reports: Sequence[Report]) -> dict[int, float]:
    return {epoch: math.nan if value is None else value for epoch, value in reports}


_STATES: dict[str, TrialState] = {
    JobStatus.SUCCEEDED: TrialState.COMPLETE,
    JobStatus.FAILED: TrialState.FAIL,
    JobStatus.CANCELLED: TrialState.FAIL,
}


def _build_median(startup_trials: int, warmup_epochs: int, interval_epochs: int, min_trials: int) -> BasePruner:
    return optuna.pruners.MedianPruner(startup_trials, warmup_epochs, interval_epochs, n_min_trials=min_trials)


def _build_percentile(
    percentile: float, startup_trials: int, warmup_epochs: int, interval_epochs: int, min_trials: int
) -> BasePruner:
    return optuna.pruners.PercentilePruner(
        percentile, startup_trials, warmup_epochs, interval_epochs, n_min_trials=min_trials
    )


def _build_halving(min_epochs: int, reduction_factor: int, min_early_stopping_rate: int) -> BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(min_epochs, reduction_factor, min_early_stopping_rate)


def _build_threshold(lower: float | None, upper: float | None, warmup_epochs: int, interval_epochs: int) -> BasePruner:
    return optuna.pruners.ThresholdPruner(lower, upper, warmup_epochs, interval_epochs)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "median": _build_median,
    "percentile": _build_percentile,
    "successive_halving": _build_halving,
    "hyperband": lambda min_epochs, max_epochs, reduction_factor: optuna.pruners.HyperbandPruner(
        min_epochs, max_epochs, reduction_factor
    ),
    "threshold": _build_threshold,
}
