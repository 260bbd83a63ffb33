"""The pace: how fast a run goes on this machine, by which a length in minutes becomes a number of epochs.

A few steps at each phase's image size are timed on throwaway learners, and one online evaluation. The number of epochs
is stored with the run, so that a resume trains the same length whatever the speed then is.
"""

import itertools
import statistics
import time

from ssl_core.config import Phase, TrainingRun
from ssl_core.config.fields import Auto
from ssl_core.training.learner import Learner
from ssl_core.training.resolve import ONLINE_EVALUATIONS, Length
from ssl_core.training.training_data import Material

_WARM_UP_STEPS, _FEWEST_STEPS = 1, 3
_SHARE, _MOST_SECONDS = 0.005, 10.0  # of the run, for each image size, unless the fewest steps take longer
_BATCHES = 20  # different ones
_EVALUATION_SHARE = 0.06  # of the run, at most, where their number is left open


def length_in(minutes: float, resolved: TrainingRun, evaluation_every: int | Auto, material: Material) -> Length:
    """Return the length that fits, this measurement and the online evaluations included; at least one epoch.

    resolved: the config, resolved but for its length; evaluation_every: as the config was given.
    """
    began, seconds = time.perf_counter(), 60 * minutes
    step_seconds = _step_seconds(resolved, material, min(_MOST_SECONDS, _SHARE * seconds))
    epoch_seconds = step_seconds * max(1, len(material.rows) // resolved.batch_size)
    evaluation_seconds = _evaluation_seconds(resolved, material)
    evaluations = ONLINE_EVALUATIONS
    left = seconds - (time.perf_counter() - began)
    if evaluation_every == "auto":
        evaluations = max(1, min(evaluations, int(_EVALUATION_SHARE * seconds / max(evaluation_seconds, 1e-9))))
        left -= evaluations * evaluation_seconds
    elif evaluation_every > 0:
        epoch_seconds += evaluation_seconds / evaluation_every
    return Length(max(1, min(100_000, int(left / epoch_seconds))), evaluations)


def _step_seconds(resolved: TrainingRun, material: Material, patience: float) -> float:
    """The mean over the run of what a step takes; `patience` seconds of each image size are looked at."""
    assert resolved.phases != "auto"
    starts = [0.0, *(phase.until for phase in resolved.phases)]
    return sum(
        (phase.until - start) * _seconds_at(phase.image_size, resolved, material, patience)
        for start, phase in zip(starts, resolved.phases, strict=False)
    )


def _seconds_at(image_size: int, resolved: TrainingRun, material: Material, patience: float) -> float:
    """The mean of what steps with views of one size take, slow moments included, as the run will have them too."""
    alone = resolved.model_copy(update={"phases": (Phase(until=1.0, image_size=image_size),)})
    learner = Learner(alone, material)
    batches = itertools.cycle(itertools.islice(learner.batches(), _BATCHES))
    taken: list[float] = []
    while len(taken) < _WARM_UP_STEPS + _FEWEST_STEPS or sum(taken) < patience:
        start = time.perf_counter()
        rows = next(batches)
        learner.advance(material.images.batch(rows), rows, watched=True).loss.item()
        learner.step = 0  # the first epoch may be as short as one step
        taken.append(time.perf_counter() - start)
    return statistics.fmean(taken[_WARM_UP_STEPS:])


def _evaluation_seconds(resolved: TrainingRun, material: Material) -> float:
    if material.monitor is None:
        return 0.0
    encoder = Learner(resolved, material).encoder()
    start = time.perf_counter()
    material.monitor.judge(encoder)
    return time.perf_counter() - start
