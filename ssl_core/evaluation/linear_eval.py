"""The linear evaluation run: linear classifiers on a frozen encoder's features, by fractions of the labels.

Features are computed once, unless the classifiers are trained on augmented images. Learning rate and weight decay are
never selected on the test images.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.config import LinearEval
from ssl_core.data.label_split import draw_labelled, find_labelled
from ssl_core.data.sampling import Rows
from ssl_core.evaluation import accuracy, linear_augmented, logistic_regression
from ssl_core.evaluation.features import Evaluation, EventStream, Features, FeatureSource
from ssl_core.evaluation.linear_checkpoint import FitResult, LinearEvalCheckpoint
from ssl_core.evaluation.logistic_regression import Classifiers, ProbeTraining, Scaling, Setting
from ssl_core.events import Event, Result, Stopped
from ssl_core.inputs import Inputs
from ssl_core.reports import confusion_matrix, label_efficiency


def run_linear_eval(config: LinearEval, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Evaluate the model and the baselines with linear classifiers; config: resolved. Raises RunFailure."""
    evaluation = Evaluation(config, inputs)
    draws = _draw_labels(config, evaluation)
    evaluation.total_steps += len(evaluation.source_names) * sum(
        _count_steps(config, rows) for each in draws.values() for rows in each
    )
    checkpoint = LinearEvalCheckpoint(directory, {"config": config.model_dump(mode="json"), **evaluation.fingerprint})
    yield from checkpoint.load(inputs.checkpoint)
    results: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    for name in evaluation.source_names:
        source = evaluation.load_source(name)
        features = yield from evaluation.extract(source)
        if features is None:
            yield from checkpoint.save(evaluation.step) if checkpoint.has_unsaved else ()
            yield Stopped(evaluation.step)
            return
        probe = _LinearProbe(config, evaluation, source, features, checkpoint)
        for fraction, rows in draws.items():
            row = yield from probe.evaluate(rows)
            if row is None:
                return
            results.append({"features": name, "label_fraction": fraction, **row})
            yield evaluation.report_metric("linear/top1", name, row["top1"])
        if name == "model":
            details = probe.details
        del probe, features  # before those of the next source are computed
    top1 = results[len(draws) - 1]["top1"]  # of the model, with the largest fraction of the labels
    yield from confusion_matrix.write(details, top1, directory)
    yield from label_efficiency.write(results, evaluation.split.test_name, directory)
    protocol = {"protocol": _describe_protocol(config, evaluation), **evaluation.summary}
    yield Result({**protocol, "results": results, "top1": top1, **details})


def _draw_labels(config: LinearEval, evaluation: Evaluation) -> dict[float, list[Rows]]:
    """For each fraction of the labels, ascending, the labelled positions in the training images of each draw."""
    labels = evaluation.train_labels.cpu().numpy()
    if config.label_rows is not None:
        rows = find_labelled(evaluation.split, config.label_rows)
        return {len(rows) / len(labels): [rows]}
    return {
        fraction: [
            draw_labelled(labels, fraction, config.seed, draw) for draw in range(config.draws if fraction < 1 else 1)
        ]
        for fraction in sorted(set(config.label_fractions))
    }


def _count_steps(config: LinearEval, rows: Rows) -> int:
    """The number of steps of a fit."""
    return 1 + (config.epochs * math.ceil(len(rows) / config.batch_size) if config.augment else 0)


class _LinearProbe:
    """Linear classifiers on the features of one source."""

    def __init__(
        self,
        config: LinearEval,
        evaluation: Evaluation,
        source: FeatureSource,
        features: Features,
        checkpoint: LinearEvalCheckpoint,
    ) -> None:
        self._config, self._evaluation, self._source, self._checkpoint = config, evaluation, source, checkpoint
        self._scaling = Scaling.fit(features.train) if config.standardise else None
        self._features = features if self._scaling is None else features.scale_(self._scaling)
        self.details: dict[str, Any] = {}  # per-class metrics, of the first draw of the last fraction

    def evaluate(self, draws: Sequence[Rows]) -> EventStream[dict[str, Any] | None]:
        """Train and test on each draw of a fraction of the labels; None when the run is stopped."""
        evaluation, checkpoint = self._evaluation, self._checkpoint
        results: list[FitResult] = []
        for rows in draws:
            result = checkpoint.next_result()
            if result is not None:
                evaluation.skip_steps(_count_steps(self._config, rows))
            else:
                result = yield from self._fit_and_test(rows, detailed=not results)
                if result is None:
                    return None
                checkpoint.add(result)
                yield evaluation.report_step()
                if evaluation.is_stopped():
                    yield from checkpoint.save(evaluation.step)
                    yield Stopped(evaluation.step)
                    return None
                yield from checkpoint.save_if_due(evaluation.step)
            results.append(result)
        self.details = results[0].details
        usual = Counter(result.setting for result in results).most_common(1)[0][0]
        ranks = torch.stack([result.ranks for result in results])  # D×N
        return {
            "labels": float(np.mean([len(rows) for rows in draws])),
            "draws": len(draws),
            **accuracy.compute_accuracy(ranks, len(evaluation.classes), self._config.seed),
            "top1_std": (ranks == 0).double().mean(1).std(unbiased=False).item(),
            "learning_rate": usual.learning_rate,
            "weight_decay": usual.weight_decay,
        }

    def _fit_and_test(self, rows: Rows, *, detailed: bool) -> EventStream[FitResult | None]:
        """Train on those labelled images, and test; None when the run is stopped."""
        evaluation = self._evaluation
        fitted = yield from self._fit(rows)
        if fitted is None:
            return None
        setting, classifier = fitted
        logits = torch.cat([classifier.compute_logits(part)[:, :, 0] for part in self._features.test.split(4096)])
        details = accuracy.compute_class_metrics(logits, evaluation.test_labels, evaluation.classes) if detailed else {}
        return FitResult(setting, accuracy.compute_ranks(logits, evaluation.test_labels).int().cpu(), details)

    def _fit(self, rows: Rows) -> EventStream[tuple[Setting, Classifiers] | None]:
        config, evaluation, features = self._config, self._evaluation, self._features
        if config.augment:
            return (
                yield from linear_augmented.fit(
                    config, evaluation, self._source, features, self._scaling, rows, self._checkpoint
                )
            )
        training = ProbeTraining(len(evaluation.classes), config.epochs, config.batch_size, config.seed)
        labelled = torch.from_numpy(rows).to(features.train.device)
        setting = self._select_setting(labelled, training)
        labels = evaluation.train_labels
        return setting, logistic_regression.fit(features.train, labels, [setting], training, labelled)

    def _select_setting(self, labelled: Tensor, training: ProbeTraining) -> Setting:
        """Select on the val split when all labels are used, else by cross-validation on the labelled images."""
        config, evaluation = self._config, self._evaluation
        train, labels, val = self._features.train, evaluation.train_labels, self._features.val
        settings = logistic_regression.build_grid(config.learning_rates, config.weight_decays)
        if len(settings) > 1 and len(val) and len(labelled) == len(train):
            classifiers = logistic_regression.fit(train, labels, settings, training)
            return logistic_regression.select_best(settings, *classifiers.score(val, evaluation.val_labels))
        held_out = config.validation_fraction
        return logistic_regression.select_setting(train, labels, settings, training, held_out, labelled)


def _describe_protocol(config: LinearEval, evaluation: Evaluation) -> str:
    scale = "standardised by the training images and brought to unit length" if config.standardise else "as they are"
    trained_on = "un-augmented images"
    if config.augment:
        low, high = linear_augmented.CROP_AND_FLIP.crop_area or (1.0, 1.0)
        trained_on = f"a new view in every epoch (crop of {low:.0%} to {high:.0%} of the area, flip)".replace("%", " %")
    return (
        f"Multinomial logistic regression from zero on features {scale}, {config.epochs} epochs of SGD in batches of"
        f" {config.batch_size} (Nesterov momentum 0.9, cosine to 0); {_describe_selection(config)};"
        f" {evaluation.describe_protocol(trained_on)}"
    )


def _describe_selection(config: LinearEval) -> str:
    settings = logistic_regression.build_grid(config.learning_rates, config.weight_decays)
    if len(settings) == 1:
        return f"learning rate {settings[0].learning_rate:g}, weight decay {settings[0].weight_decay:g}"
    return (
        f"rate and decay out of {len(settings)} selected on labelled images other than the test images (val split, or"
        f" five-fold cross-validation up to {logistic_regression.MAX_CROSS_VALIDATED:,} labels, or held out), then"
        " trained on all labels of the fraction"
    )
