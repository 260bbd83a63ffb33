"""Compiled training: the seconds until its first step is done, a step and its parts to compare with `speed`'s, and
whether a run that is killed and resumed has equal weights.
"""

import time
from collections.abc import Iterator

from benchmarks.acceptance.figure import Figure, check, skipped
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.stages import exact
from benchmarks.acceptance.training_step import TrainingStep, measure_ms, synchronize

_TIMES = 40
_TOO_LONG = skipped("compiled training", "the C++ compiler takes a minute")


def measure(setup: Setup) -> Iterator[Figure]:
    """Compare the times; not on a CPU, whose compiler takes longer than everything else in a tiny run."""
    if setup.device == "cpu":
        yield _TOO_LONG
        return
    with TrainingStep.open(setup, compile=True) as step:
        started = time.monotonic()
        step.take()
        synchronize(setup)
        yield Figure("first step", time.monotonic() - started, "s")
        compilation = step.learner.compilation
        failure = None if compilation is None else compilation.failure
        yield check("compiler", failure is None, failure or "succeeded", "succeeds")
        yield Figure("whole step", measure_ms(setup, step.take, _TIMES), "ms")
        yield Figure("views alone", measure_ms(setup, step.make_views, _TIMES), "ms")
        views = step.make_views()
        yield Figure("network alone", measure_ms(setup, lambda: step.train_network(views), _TIMES), "ms")


def measure_exactness(setup: Setup) -> Iterator[Figure]:
    """Train, kill and resume a compiled run; not on a CPU, as above."""
    yield from [_TOO_LONG] if setup.device == "cpu" else exact.measure(setup, names=[exact.COMPILED])
