"""The evaluation runs: an encoder judged with labels, by the kNN vote and by linear classifiers.

The encoder does not learn. Its features are computed once, unless linear classifiers are to learn from augmented
images. Settings are never picked with the images that judge.
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
from ssl_core.evaluation.features import Evaluation, Features, FeatureSource, Steps
from ssl_core.evaluation.linear_checkpoint import FitResult, LinearEvalCheckpoint
from ssl_core.evaluation.logistic_regression import Classifiers, ProbeTraining, Scaling, Setting
from ssl_core.events import Event, Result, Stopped
from ssl_core.inputs import Inputs
from ssl_core.reports import confusion_matrix, label_efficiency


def run_linear_eval(config: LinearEval, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Judge by linear classifiers on shares of the labels; `config` is resolved. Raises RunFailure."""
    evaluation = Evaluation(config, inputs)
    draws = _draws(config, evaluation)
    evaluation.total += len(evaluation.sources) * sum(_steps(config, rows) for each in draws.values() for rows in each)
    checkpoint = LinearEvalCheckpoint(directory, {"config": config.model_dump(mode="json"), **evaluation.fingerprint})
    yield from checkpoint.read(inputs.checkpoint)
    results: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    for name in evaluation.sources:
        source = evaluation.source(name)
        found = yield from evaluation.represent(source)
        if found is None:
            yield from checkpoint.save(evaluation.done) if checkpoint.news else ()
            yield Stopped(evaluation.done)
            return
        student = _LinearProbe(config, evaluation, source, found, checkpoint)
        for fraction, drawn in draws.items():
            row = yield from student.judged(drawn)
            if row is None:
                return
            results.append({"features": name, "label_fraction": fraction, **row})
            yield evaluation.metric("linear/top1", name, row["top1"])
        if name == "model":
            details = student.details
    top1 = results[len(draws) - 1]["top1"]  # the model's own, on the largest share of the labels
    yield from confusion_matrix.write(details, top1, directory)
    yield from label_efficiency.write(results, evaluation.split.test_name, directory)
    shown = {"results": results, "top1": top1, **details}
    yield Result({"protocol": _protocol(config, evaluation), **evaluation.about, **shown})


def _draws(config: LinearEval, evaluation: Evaluation) -> dict[float, list[Rows]]:
    """For each share of the labels, ascending, the positions in the training images that each draw reveals."""
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


def _steps(config: LinearEval, rows: Rows) -> int:
    """How many steps of the bench a fit takes."""
    return 1 + (config.epochs * math.ceil(len(rows) / config.batch_size) if config.augment else 0)


class _LinearProbe:
    """Learns to classify by the features of one source."""

    def __init__(
        self,
        config: LinearEval,
        evaluation: Evaluation,
        source: FeatureSource,
        found: Features,
        checkpoint: LinearEvalCheckpoint,
    ) -> None:
        self._config, self._evaluation, self._source, self._checkpoint = config, evaluation, source, checkpoint
        self._scaling = Scaling.of(found.train) if config.standardise else None
        self._found = found if self._scaling is None else found.scaled(self._scaling)
        self.details: dict[str, Any] = {}  # by class, of the first draw of what was judged last

    def judged(self, draws: Sequence[Rows]) -> Steps[dict[str, Any] | None]:
        """Train and test on each draw of a share of the labels; None when the run was asked to stop."""
        evaluation, checkpoint = self._evaluation, self._checkpoint
        outcomes: list[FitResult] = []
        for rows in draws:
            outcome = checkpoint.recall()
            if outcome is not None:
                evaluation.skip(_steps(self._config, rows))
            else:
                outcome = yield from self._outcome(rows, detailed=not outcomes)
                if outcome is None:
                    return None
                checkpoint.note(outcome)
                yield evaluation.step()
                if evaluation.stopped():
                    yield from checkpoint.save(evaluation.done)
                    yield Stopped(evaluation.done)
                    return None
                yield from checkpoint.keep(evaluation.done)
            outcomes.append(outcome)
        self.details = outcomes[0].details
        usual = Counter(outcome.setting for outcome in outcomes).most_common(1)[0][0]
        each = torch.stack([outcome.ranks for outcome in outcomes])  # D×N
        return {
            "labels": float(np.mean([len(rows) for rows in draws])),
            "draws": len(draws),
            **accuracy.accuracy(each, len(evaluation.classes), self._config.seed),
            "top1_std": (each == 0).double().mean(1).std(unbiased=False).item(),
            "learning_rate": usual.learning_rate,
            "weight_decay": usual.weight_decay,
        }

    def _outcome(self, rows: Rows, *, detailed: bool) -> Steps[FitResult | None]:
        """Train by the labels of those training images, and test; None when the run was asked to stop."""
        evaluation = self._evaluation
        fitted = yield from self._fit(rows)
        if fitted is None:
            return None
        setting, classifier = fitted
        logits = torch.cat([classifier.logits(part)[:, :, 0] for part in self._found.test.split(4096)])
        details = accuracy.by_class(logits, evaluation.test_labels, evaluation.classes) if detailed else {}
        return FitResult(setting, accuracy.ranks(logits, evaluation.test_labels).int().cpu(), details)

    def _fit(self, rows: Rows) -> Steps[tuple[Setting, Classifiers] | None]:
        config, evaluation, found = self._config, self._evaluation, self._found
        if config.augment:
            return (
                yield from linear_augmented.fit(
                    config, evaluation, self._source, found, self._scaling, rows, self._checkpoint
                )
            )
        places = torch.from_numpy(rows).to(found.train.device)
        x, y = found.train[places], evaluation.train_labels[places]
        training = ProbeTraining(len(evaluation.classes), config.epochs, config.batch_size, config.seed)
        setting = self._pick(x, y, training)
        return setting, logistic_regression.fit(x, y, [setting], training)

    def _pick(self, x: Tensor, y: Tensor, training: ProbeTraining) -> Setting:
        """The setting: by the val split when all labels may be used, else out of the labelled images themselves."""
        found, settings = self._found, logistic_regression.grid(self._config.learning_rates, self._config.weight_decays)
        if len(settings) > 1 and len(found.val) and len(x) == len(found.train):
            scored = logistic_regression.fit(x, y, settings, training).score(found.val, self._evaluation.val_labels)
            return logistic_regression.best(settings, *scored)
        return logistic_regression.pick(x, y, settings, training, self._config.validation_fraction)


def _protocol(config: LinearEval, evaluation: Evaluation) -> str:
    scale = "standardised by the training images and brought to unit length" if config.standardise else "as they are"
    seen = "un-augmented images"
    if config.augment:
        low, high = linear_augmented.CROP_AND_FLIP.crop_area or (1.0, 1.0)
        seen = f"a new view in every epoch (crop of {low:.0%} to {high:.0%} of the area, flip)".replace("%", " %")
    return (
        f"Multinomial logistic regression from zero on features {scale}, {config.epochs} epochs of SGD in batches of"
        f" {config.batch_size} (Nesterov momentum 0.9, cosine to 0); {_choice(config)}; {evaluation.protocol(seen)}"
    )


def _choice(config: LinearEval) -> str:
    settings = logistic_regression.grid(config.learning_rates, config.weight_decays)
    if len(settings) == 1:
        return f"learning rate {settings[0].learning_rate:g}, weight decay {settings[0].weight_decay:g}"
    return (
        f"rate and decay out of {len(settings)} picked on labelled images that do not judge (val split, or five-fold"
        f" cross-validation up to {logistic_regression.CROSS_VALIDATED:,} labels, or held out), then trained on all labels of the"
        " share"
    )
