"""Evaluation of a model: the seconds of kNN and of linear evaluation on the whole dataset."""

from collections.abc import Iterator
from typing import Any

from benchmarks.acceptance.figure import Figure
from benchmarks.acceptance.random_model import save_random_model
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.training_runs import TrainingRun, seconds_of


def measure(setup: Setup) -> Iterator[Figure]:
    model = save_random_model(setup, setup.out / "evaluation" / "model")
    fractions = [1.0] if setup.tiny else [0.01, 1.0]
    linear: dict[str, Any] = {"epochs": 1 if setup.tiny else 20, "label_fractions": fractions}
    for kind, fields in {"knn_eval": {}, "linear_eval": linear}.items():
        config = {"kind": kind, "device": setup.device, "precision": setup.precision} | fields
        each = TrainingRun(config, setup.data, setup.out / "evaluation" / kind, model=model)
        yield Figure(kind, seconds_of(each), "s")
        yield Figure(f"{kind}, a random network", 100 * each.summary["top1"], "%")
