"""Pruning: the decisions are those of Optuna's own study, though ours is built anew from the database each time."""

import math
import random
from types import SimpleNamespace

import optuna
import pytest
from pydantic import TypeAdapter, ValidationError

from service.sweeps.progress import Reported
from service.sweeps.pruners import Pruner
from worker.sweeps import pruning

ID = "swp_06h0000000000000000000000"
EPOCHS = 12
OPTIONS = [
    {"name": "median", "startup_trials": 2, "warmup_epochs": 1},
    {"name": "median", "startup_trials": 0, "interval_epochs": 3, "min_trials": 2},
    {"name": "percentile", "percentile": 25.0, "startup_trials": 1},
    {"name": "successive_halving", "reduction_factor": 2},
    {"name": "successive_halving", "min_epochs": 2, "reduction_factor": 3, "min_early_stopping_rate": 1},
    {"name": "hyperband", "max_epochs": EPOCHS, "reduction_factor": 2},
    {"name": "threshold", "lower": 0.2, "warmup_epochs": 3},
    {"name": "median", "startup_trials": 1, "patience": 2},
]


def parse(options):
    return TypeAdapter(Pruner).validate_python(options)


def draw_curves(trials):
    generator = random.Random(7)
    curves = []
    for _ in range(trials):
        end, pace, peak = generator.uniform(0.1, 0.9), generator.uniform(1, 6), generator.randint(3, EPOCHS)
        heights = [1 - math.exp(-min(epoch, 1.1 * peak - epoch / 10) / pace) for epoch in range(1, EPOCHS + 1)]
        curves.append([end * height for height in heights])
    curves[5][4] = None  # not finite
    return curves


def decide_by_optuna(options, curves, direction):
    """The epoch at which Optuna's study stops each trial, four of which run side by side."""
    study = optuna.create_study(direction=direction, pruner=pruning.build(options), study_name=ID)
    stopped, active, ahead = {}, [], list(range(len(curves)))
    while active or ahead:
        while ahead and len(active) < 4:
            active.append((ahead.pop(0), study.ask(), iter(enumerate(curves[study.trials[-1].number], 1))))
        for running in [*active]:
            number, trial, reports = running
            epoch, value = next(reports, (None, None))
            if epoch is None:
                study.tell(trial, curves[number][-1])
                active.remove(running)
                continue
            trial.report(math.nan if value is None else value, epoch)
            if trial.should_prune():
                stopped[number] = epoch
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                active.remove(running)
    return stopped


def decide_by_prune(options, curves, direction):
    """The same by `prune`, of a state that goes through the database's form each time."""
    sweep = SimpleNamespace(id=ID, goal=direction, pruner=options)
    trials = [Reported(number, None, False, False, None, [], None) for number in range(len(curves))]
    stopped, active, ahead = {}, [], list(range(len(curves)))
    while active or ahead:
        while ahead and len(active) < 4:
            active.append(ahead.pop(0))
            trials[active[-1]].status = "running"
        for number in [*active]:
            trial = trials[number]
            if len(trial.reports) == EPOCHS:
                trial.status, trial.value = "succeeded", curves[number][-1]
                active.remove(number)
                continue
            epoch = len(trial.reports) + 1
            if number in pruning.prune(sweep, trials, {number: [(epoch, curves[number][epoch - 1])]}):
                stopped[number] = epoch
                trial.status, trial.is_pruned = "cancelled", True
                active.remove(number)
    return stopped


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options["name"])
def test_the_decisions_are_those_of_a_study_of_optuna(options, direction):
    options = parse(options).model_dump()
    curves = draw_curves(24)
    expected = decide_by_optuna(options, curves, direction)
    assert 0 < len(expected) < 24
    assert decide_by_prune(options, curves, direction) == expected


def test_epochs_that_were_missed_are_judged_in_their_order():
    """A keeper that was down sees several epochs of several trials at once."""
    sweep = SimpleNamespace(id=ID, goal="maximize", pruner=parse({"name": "threshold", "lower": 0.5}).model_dump())
    trials = [Reported(number, "running", False, False, None, [], None) for number in range(3)]
    fresh = {
        0: [(1, 0.6), (2, 0.7)],
        1: [(1, 0.6), (2, 0.4), (3, 0.9)],
        2: [(1, None)],
    }
    assert pruning.prune(sweep, trials, fresh) == {1: 2, 2: 1}
    assert trials[1].reports == fresh[1]


def test_a_trial_is_compared_with_one_that_has_ended_meanwhile():
    options = parse({"name": "median", "startup_trials": 1}).model_dump()
    sweep = SimpleNamespace(id=ID, goal="maximize", pruner=options)
    trials = [
        Reported(0, "succeeded", False, False, 0.9, [], None),
        Reported(1, "running", False, False, None, [], None),
    ]
    assert pruning.prune(sweep, trials, {0: [(1, 0.9)], 1: [(1, 0.1)]}) == {1: 1}


def test_ended_pruned_and_retried_trials_are_not_stopped():
    sweep = SimpleNamespace(id=ID, goal="maximize", pruner=parse({"name": "threshold", "lower": 0.5}).model_dump())
    trials = [
        Reported(0, "succeeded", False, False, 0.1, [], None),
        Reported(1, "cancelled", True, False, None, [], None),
        Reported(2, "cancelling", True, False, None, [], None),
        Reported(3, "running", False, True, None, [], None),  # a client has retried it
    ]
    assert pruning.prune(sweep, trials, {number: [(1, 0.1)] for number in range(4)}) == {}


@pytest.mark.parametrize(
    "options",
    [
        {"name": "nothing"},
        {"name": "median", "percentile": 5.0},
        {"name": "percentile"},
        {"name": "threshold"},
        {"name": "threshold", "lower": 0.5, "upper": 0.5},
        {"name": "hyperband", "min_epochs": 5, "max_epochs": 4},
        {"name": "successive_halving", "reduction_factor": 1},
    ],
)
def test_invalid_options_are_refused(options):
    with pytest.raises(ValidationError):
        parse(options)
