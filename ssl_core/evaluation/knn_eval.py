"""The kNN evaluation: a weighted vote of the nearest training images."""

from collections.abc import Iterator
from pathlib import Path

import torch

from ssl_core.config import KnnEval
from ssl_core.evaluation import accuracy, knn
from ssl_core.evaluation.features import Bench, Inputs
from ssl_core.events import Event, Result, Stopped
from ssl_core.reports import confusion_matrix


def run_knn_eval(config: KnnEval, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Judge by the kNN vote; `config` is resolved. Raises RunFailure."""
    bench = Bench(config, inputs)
    results, details = [], {}
    for name in bench.sources:
        found = yield from bench.represent(bench.source(name))
        if found is None:
            yield Stopped(bench.done)
            return
        votes = knn.votes(found.train, bench.train_labels, found.test, len(bench.classes), config.k, config.temperature)
        votes = torch.where(votes > 0, votes, -torch.inf)
        ranks = accuracy.ranks(votes, bench.test_labels)[None]
        results.append({"features": name, **accuracy.accuracy(ranks, len(bench.classes), config.seed)})
        if name == "model":
            details = accuracy.by_class(votes, bench.test_labels, bench.classes)
        yield bench.metric("knn/top1", name, results[-1]["top1"])
    yield from confusion_matrix.left(details, results[0]["top1"], directory)
    k = min(config.k, len(bench.train_labels))
    how = f"Cosine kNN, k {k}, votes weighed by exp(similarity / {config.temperature:g})"
    extra = {"k": k, "temperature": config.temperature}
    shown = {"results": results, "top1": results[0]["top1"], **details}
    yield Result({"protocol": f"{how}; {bench.protocol()}", **bench.about, **extra, **shown})
