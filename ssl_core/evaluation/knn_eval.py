"""The kNN evaluation run: top-1 of the kNN classifier on a frozen encoder's features."""

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
    """Evaluate the model and the baselines with kNN; config: resolved. Raises RunFailure."""
    evaluation = Evaluation(config, inputs)
    results, details = [], {}
    for name in evaluation.source_names:
        features = yield from evaluation.extract(evaluation.load_source(name))
        if features is None:
            yield Stopped(evaluation.step)
            return
        votes = knn.compute_votes(
            features.train,
            evaluation.train_labels,
            features.test,
            len(evaluation.classes),
            config.k,
            config.temperature,
            overwrite=True,  # no other use is made of them
        )
        del features  # before those of the next source are computed
        votes = torch.where(votes > 0, votes, -torch.inf)
        ranks = accuracy.compute_ranks(votes, evaluation.test_labels)[None]
        results.append({"features": name, **accuracy.compute_accuracy(ranks, len(evaluation.classes), config.seed)})
        if name == "model":
            details = accuracy.compute_class_metrics(votes, evaluation.test_labels, evaluation.classes)
        yield evaluation.report_metric("knn/top1", name, results[-1]["top1"])
    yield from confusion_matrix.write(details, results[0]["top1"], directory)
    k = min(config.k, len(evaluation.train_labels))
    classifier = f"Cosine kNN, k {k}, votes weighed by exp(similarity / {config.temperature:g})"
    protocol = {"protocol": f"{classifier}; {evaluation.describe_protocol()}", **evaluation.summary}
    settings = {"k": k, "temperature": config.temperature}
    yield Result({**protocol, **settings, "results": results, "top1": results[0]["top1"], **details})
