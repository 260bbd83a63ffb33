"""A long run: 200 epochs of SimCLR, and kNN on the whole test split."""

import time
from collections.abc import Iterator

from benchmarks.acceptance.figure import Figure, at_least
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.training_runs import TrainingRun, seconds_of

_GOAL = 84  # % of kNN on CIFAR-10 after 200 epochs
_EVALUATIONS = 4


def train(setup: Setup) -> Iterator[Figure]:
    """Train; the model stays in the folder `run`, for `evaluate`."""
    epochs = setup.epochs
    evaluation = {"every_epochs": max(1, epochs // _EVALUATIONS), "max_images": 64 if setup.tiny else 5000}
    each = TrainingRun(
        setup.config(epochs=epochs, evaluation=evaluation, compile="auto"), setup.data, setup.out / "train" / "run"
    )
    started = time.monotonic()
    for event in each.attempt():
        if event["event"] == "metrics" and "online/knn" in event["values"]:
            accuracy = 100 * event["values"]["online/knn"]
            yield Figure(f"online kNN after {event['epoch']:.0f} epochs, a part of the images", accuracy, "%")
    seconds, summary = time.monotonic() - started, each.summary
    yield Figure("epochs", summary["epochs"])
    yield Figure("length", seconds / 60, "minutes")
    yield Figure("mean rate", 2 * summary["images_per_second"], "views/s")


def evaluate(setup: Setup) -> Iterator[Figure]:
    """Evaluate the trained model by kNN."""
    config = {"kind": "knn_eval", "device": setup.device, "precision": setup.precision}
    model = setup.out / "train" / "run" / "model"
    each = TrainingRun(config, setup.data, setup.out / "knn" / "run", model=model)
    yield Figure("length", seconds_of(each), "s")
    yield at_least("kNN on the test split", 100 * each.summary["top1"], "%", setup.accuracy_goal(_GOAL))
