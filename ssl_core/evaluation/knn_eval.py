"""The kNN evaluation: a weighted vote of the nearest training images."""

from collections.abc import Iterator
from pathlib import Path

import torch

from ssl_core.config import KnnEval
from ssl_core.evaluation import accuracy, knn
from ssl_core.evaluation.features import Evaluation
from ssl_core.events import Event, Result, Stopped
from ssl_core.inputs import Inputs
from ssl_core.reports import confusion_matrix


def run_knn_eval(config: KnnEval, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Judge by the kNN vote; `config` is resolved. Raises RunFailure."""
    evaluation = Evaluation(config, inputs)
    results, details = [], {}
    for name in evaluation.sources:
        found = yield from evaluation.represent(evaluation.source(name))
        if found is None:
            yield Stopped(evaluation.done)
            return
        votes = knn.votes(
            found.train, evaluation.train_labels, found.test, len(evaluation.classes), config.k, config.temperature
        )
        votes = torch.where(votes > 0, votes, -torch.inf)
        ranks = accuracy.ranks(votes, evaluation.test_labels)[None]
        results.append({"features": name, **accuracy.accuracy(ranks, len(evaluation.classes), config.seed)})
        if name == "model":
            details = accuracy.by_class(votes, evaluation.test_labels, evaluation.classes)
        yield evaluation.metric("knn/top1", name, results[-1]["top1"])
    yield from confusion_matrix.write(details, results[0]["top1"], directory)
    k = min(config.k, len(evaluation.train_labels))
    how = f"Cosine kNN, k {k}, votes weighed by exp(similarity / {config.temperature:g})"
    extra = {"k": k, "temperature": config.temperature}
    shown = {"results": results, "top1": results[0]["top1"], **details}
    yield Result({"protocol": f"{how}; {evaluation.protocol()}", **evaluation.about, **extra, **shown})
