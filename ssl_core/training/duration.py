"""The duration of a run: its steps timed on this machine, so that a length in minutes becomes a number of epochs.

A few steps at each phase's image size and one online evaluation are timed on throwaway learners. The number of epochs
is stored with the run, so that a resumed run has the same length at any speed.
"""

import gc
import itertools
import time

from torch import Tensor

from ssl_core.config import Phase, TrainingRun
from ssl_core.config.fields import known
from ssl_core.training.learner import Learner
from ssl_core.training.resolve import ONLINE_EVALUATIONS, Length, with_length
from ssl_core.training.training_data import TrainingData

_WARM_UP_STEPS = {"cpu": 1, "cuda": 5}  # a GPU loads kernels in the first ones
_FEWEST_STEPS = 3
_SHARE, _MOST_SECONDS = 0.005, 10.0  # of the run, for each image size, unless the fewest steps take longer
_BATCHES = 20  # different ones
_EVALUATION_SHARE = 0.06  # of the run, at most, where the config leaves their number open


def measure(resolved: TrainingRun, data: TrainingData) -> Length:
    """Return the length that fits into the config's `minutes`, this measurement and the online evaluations included; at
    least one epoch.

    resolved: a config that is resolved but for its length.
    """
    assert resolved.minutes is not None
    evaluation_every, one_epoch = resolved.evaluation.every_epochs, with_length(resolved, Length(1))
    began, seconds = time.perf_counter(), 60 * resolved.minutes
    step_seconds = _step_seconds(one_epoch, data, min(_MOST_SECONDS, _SHARE * seconds))
    gc.collect()  # a compiled learner refers to itself
    epoch_seconds = step_seconds * max(1, len(data.rows) // known(resolved.batch_size))
    evaluation_seconds = _evaluation_seconds(one_epoch, data)
    evaluations = ONLINE_EVALUATIONS
    left = seconds - (time.perf_counter() - began)
    if evaluation_every == "auto":
        evaluations = max(1, min(evaluations, int(_EVALUATION_SHARE * seconds / max(evaluation_seconds, 1e-9))))
        left -= evaluations * evaluation_seconds
    elif evaluation_every > 0:
        epoch_seconds += evaluation_seconds / evaluation_every
    return Length(max(1, min(100_000, int(left / epoch_seconds))), evaluations)


def _step_seconds(resolved: TrainingRun, data: TrainingData, least_seconds: float) -> float:
    """The mean duration of a step over the run; each image size is timed for `least_seconds`."""
    phases = known(resolved.phases)
    starts = [0.0, *(phase.until for phase in phases)]
    return sum(
        (phase.until - start) * _seconds_at(phase.image_size, resolved, data, least_seconds)
        for start, phase in zip(starts, phases, strict=False)
    )


def _seconds_at(image_size: int, resolved: TrainingRun, data: TrainingData, least_seconds: float) -> float:
    """The mean duration of steps with views of one size; outliers count, as the run has them too."""
    alone = resolved.model_copy(update={"phases": (Phase(until=1.0, image_size=image_size),)})
    learner = Learner(alone, data)
    batches = itertools.cycle(itertools.islice(learner.batches(), _BATCHES))

    def step() -> Tensor:
        rows = next(batches)
        loss = learner.advance(learner.prepare(data.images.batch(rows), rows, 0), watched=True).loss
        learner.step = 0  # the first epoch may be as short as one step
        return loss

    for _ in range(_WARM_UP_STEPS[learner.device.type]):
        step().item()
    start, steps = time.perf_counter(), 0
    while steps < _FEWEST_STEPS or time.perf_counter() < start + least_seconds:
        loss, steps = step(), steps + 1
    loss.item()  # waits for the device, once, as steps of a run do not
    return (time.perf_counter() - start) / steps


def _evaluation_seconds(resolved: TrainingRun, data: TrainingData) -> float:
    if data.evaluator is None:
        return 0.0
    encoder = Learner(resolved, data).encoder()
    start = time.perf_counter()
    data.evaluator.evaluate(encoder)
    return time.perf_counter() - start
