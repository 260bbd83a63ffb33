"""Speed of SimCLR end to end, and the time of a step, its views alone and its network alone."""

from collections.abc import Iterator
from contextlib import closing

from benchmarks.acceptance import memory
from benchmarks.acceptance.figure import Figure, at_least
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.training_runs import TrainingRun
from benchmarks.acceptance.training_step import TrainingStep, measure_ms

_GOAL = 100_000  # views/s
_EPOCHS = 200  # of which only the first are trained; it decides how often metrics are reported


def measure(setup: Setup) -> Iterator[Figure]:
    yield at_least("end to end", measure_rate(setup, "speed", 1 if setup.tiny else 10), "views/s", setup.goal(_GOAL))
    yield Figure("peak memory", memory.read_peak_gib(setup), "GiB")
    times = 3 if setup.tiny else 40
    with TrainingStep.open(setup) as step:
        yield Figure("whole step", measure_ms(setup, step.take, times), "ms")
        yield Figure("views alone", measure_ms(setup, step.make_views, times), "ms")
        views = step.make_views()
        yield Figure("network alone", measure_ms(setup, lambda: step.train_network(views), times), "ms")


def measure_rate(setup: Setup, name: str, seconds: float) -> float:
    """Return the views per second of a run of SimCLR with SGD, metrics included, after a third of the seconds."""
    config = setup.config(epochs=_EPOCHS, optimizer={"name": "sgd"})
    each = TrainingRun(config, setup.data, setup.out / name / "run")
    points: list[tuple[float, int]] = []  # seconds and step of each report
    with closing(each.attempt()) as events:
        for event in events:
            if event["event"] == "metrics":
                points.append((event["time"], event["step"]))
            counted = [point for point in points if point[0] - points[0][0] >= seconds / 3]
            if len(counted) > 1 and points[-1][0] - points[0][0] >= seconds:
                (start, first), (end, last) = counted[0], counted[-1]
                return 2 * setup.batch_size * (last - first) / (end - start)
    raise RuntimeError(f"the run ended within {seconds} s: {each.summary}")
