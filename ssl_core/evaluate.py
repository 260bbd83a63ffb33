"""The evaluation runs: an encoder judged with labels, by the kNN vote and by linear classifiers.

Images are not augmented, the encoder does not learn, and its features are computed once. Settings are never picked
with the images that judge.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ssl_core import artifact, knn, linear
from ssl_core.artifact import Encoder
from ssl_core.config import KnnEval, LinearEval
from ssl_core.data import Dataset, labels_of
from ssl_core.events import Event, Metrics, Progress, Result, Stopped
from ssl_core.failures import ConfigUnfit
from ssl_core.linear import Scaling, Setting, Training
from ssl_core.source import prepared
from ssl_core.trial import Trial, draw_labelled

_BATCH = 256
_CHUNK = 16 * _BATCH  # images prepared at a time
_PIXELS_SIDE = 64  # the `pixels` baseline looks at no more than this

T = TypeVar("T")
Steps = Generator[Event, None, T]


class Inputs(Protocol):
    """What an evaluation is given."""

    @property
    def dataset(self) -> Path: ...
    @property
    def model(self) -> Path | None: ...
    @property
    def stop(self) -> Callable[[], bool]: ...


def features(encoder: Encoder, pixels: Tensor, layer: str = "backbone", batch_size: int = _BATCH) -> Tensor:
    """Return float32 N×D on the CPU of prepared images uint8 N×S×S×3."""
    return torch.cat([encoder.encode(part, layer).cpu() for part in pixels.split(batch_size)])


def run_knn_eval(config: KnnEval, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Judge by the kNN vote; `config` is resolved. Raises RunFailure."""
    bench = _Bench(config, inputs)
    results = []
    for name in bench.sources:
        found = yield from bench.represent(name)
        if found is None:
            return
        top1 = knn.top1(
            found.train,
            bench.train_labels,
            found.test,
            bench.test_labels,
            bench.classes,
            config.k,
            config.temperature,
        )
        results.append({"features": name, "top1": top1})
        yield bench.metric("knn/top1", name, top1)
    k = min(config.k, len(bench.train_labels))
    how = f"Cosine kNN, k {k}, votes weighed by exp(similarity / {config.temperature:g})"
    extra = {"k": k, "temperature": config.temperature}
    yield Result({"protocol": f"{how}; {bench.protocol}", **bench.about, **extra, "results": results, **_top(results)})


def run_linear_eval(config: LinearEval, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Judge by linear classifiers on shares of the labels; `config` is resolved. Raises RunFailure."""
    bench = _Bench(config, inputs)
    fractions = sorted(set(config.label_fractions))
    bench.total += len(bench.sources) * sum(_draws(config, fraction) for fraction in fractions)
    results: list[dict[str, Any]] = []
    for name in bench.sources:
        found = yield from bench.represent(name)
        if found is None:
            return
        scaled = found.scaled()
        for fraction in fractions:
            row = yield from _judge(config, bench, scaled, fraction)
            if row is None:
                return
            results.append({"features": name, **row})
            yield bench.metric("linear/top1", name, row["top1"])
    places = len(config.learning_rates) * len(config.weight_decays)
    how = (
        "Multinomial logistic regression on features standardised by the training images and brought to unit length,"
        f" {config.epochs} epochs of SGD; rate and decay out of {places} picked on labelled images that do not judge"
        f" (val split, or five-fold cross-validation up to {linear.CROSS_VALIDATED:,} labels, or held out), then"
        " trained again on all labels of the share"
    )
    yield Result({"protocol": f"{how}; {bench.protocol}", **bench.about, "results": results, **_top(results)})


@dataclass(frozen=True)
class _Features:
    train: Tensor  # N×D
    val: Tensor
    test: Tensor

    def scaled(self) -> "_Features":
        scaling = Scaling.of(self.train)
        return _Features(scaling(self.train), scaling(self.val), scaling(self.test))


class _Bench:
    """What the judging of one encoder shares: its images, their labels, and how far the work has come."""

    def __init__(self, config: KnnEval | LinearEval, inputs: Inputs) -> None:
        if inputs.model is None:
            raise ConfigUnfit("An evaluation needs a model to judge.")
        self._config = config
        self._model = inputs.model
        self._stop = inputs.stop
        self._dataset = Dataset.open(inputs.dataset)
        self._trial = Trial.of(self._dataset, config.subset, config.seed)
        self._side = artifact.load_card(inputs.model)["preprocessing"]["image_size"]
        self._started = time.monotonic()
        self._images = 0
        self.sources = ("model", *dict.fromkeys(config.baselines))
        self.classes = max(len(self._dataset.classes), int(self._dataset.labels.max()) + 1)
        parts = (self._trial.train, self._trial.val, self._trial.test)
        labels = (labels_of(self._dataset, rows).to(config.device) for rows in parts)
        self.train_labels, self.val_labels, self.test_labels = labels
        self.done = 0
        self.total = len(self.sources) * sum(-(-len(rows) // _CHUNK) for rows in parts)

    @property
    def about(self) -> dict[str, Any]:
        return {"layer": self._config.layer, "classes": self.classes, "test_images": len(self.test_labels)}

    @property
    def protocol(self) -> str:
        """The part of the protocol that all evaluations share."""
        text = (
            f"features of layer {self._config.layer} of un-augmented images at {self._side} px;"
            f" {len(self.train_labels):,} labelled training images; top-1 on {self._trial.judge}"
            f" ({len(self.test_labels):,} images)."
        )
        if "pixels" in self.sources:
            text += f" Raw pixels are normalised by channel, at {min(self._side, _PIXELS_SIDE)} px."
        return text

    def represent(self, source: str) -> Steps[_Features | None]:
        """Compute the features of one source, on the run's device; None when the run was asked to stop."""
        represent, side = self._source(source)
        parts: list[Tensor] = []
        for rows in (self._trial.train, self._trial.val, self._trial.test):
            chunks = []
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                chunks.append(represent(prepared(self._dataset, chunk, side)))
                self._images += len(chunk)
                yield self.step()
                if self._stop():
                    yield Stopped(self.done)
                    return None
            parts.append(torch.cat(chunks).to(self._config.device) if chunks else parts[0][:0])
        return _Features(*parts)

    def step(self) -> Progress:
        """Count a step and tell."""
        self.done += 1
        seconds = time.monotonic() - self._started
        return Progress(
            epoch=0,
            epochs=1,
            step=self.done,
            total_steps=self.total,
            images_per_second=self._images / max(seconds, 1e-9),
            eta_seconds=seconds / self.done * max(0, self.total - self.done),
        )

    def stopped(self) -> bool:
        return self._stop()

    def metric(self, name: str, source: str, value: float) -> Metrics:
        """A metric at the present step; those of a baseline carry its name."""
        name = name if source == "model" else f"{name}_{source}"
        return Metrics(self.done, 0.0, time.time(), {name: value})

    def _source(self, name: str) -> tuple[Callable[[Tensor], Tensor], int]:
        """What turns prepared images into features, and the side at which it wants them."""
        if name == "pixels":
            card = artifact.load_card(self._model)
            return artifact.Preprocessing.of_card(card).pixels, min(self._side, _PIXELS_SIDE)
        config = self._config
        if name == "random":
            encoder = artifact.load_untrained(self._model, config.device, seed=config.seed, precision=config.precision)
        else:
            encoder = artifact.load(self._model, config.device, precision=config.precision)
        if config.layer not in encoder.layers:
            raise ConfigUnfit(f"The model has no layer {config.layer!r}; it has {', '.join(encoder.layers)}.")
        return lambda pixels: features(encoder, pixels, config.layer), self._side


def _judge(config: LinearEval, bench: _Bench, found: _Features, fraction: float) -> Steps[dict[str, Any] | None]:
    """Train and test on a share of the labels, for each draw; None when the run was asked to stop."""
    scores, counts, settings = [], [], []
    for draw in range(_draws(config, fraction)):
        rows = torch.from_numpy(draw_labelled(bench.train_labels.cpu().numpy(), fraction, config.seed, draw))
        rows = rows.to(found.train.device)
        x, y = found.train[rows], bench.train_labels[rows]
        training = Training(bench.classes, config.epochs, config.batch_size, config.seed)
        setting = _pick(config, bench, found, x, y, training)
        right, _ = linear.fit(x, y, [setting], training).score(found.test, bench.test_labels)
        scores.append(right.item() / len(bench.test_labels))
        counts.append(len(rows))
        settings.append(setting)
        yield bench.step()
        if bench.stopped():
            yield Stopped(bench.done)
            return None
    usual = Counter(settings).most_common(1)[0][0]
    return {
        "label_fraction": fraction,
        "labels": float(np.mean(counts)),
        "draws": len(scores),
        "top1": float(np.mean(scores)),
        "top1_std": float(np.std(scores)),
        "learning_rate": usual.learning_rate,
        "weight_decay": usual.weight_decay,
    }


def _pick(config: LinearEval, bench: _Bench, found: _Features, x: Tensor, y: Tensor, training: Training) -> Setting:
    """The setting: by the val split when all labels may be used, else out of the labelled images themselves."""
    settings = linear.grid(config.learning_rates, config.weight_decays)
    if len(found.val) and len(x) == len(found.train):
        return linear.best(settings, *linear.fit(x, y, settings, training).score(found.val, bench.val_labels))
    return linear.pick(x, y, settings, training, config.validation_fraction)


def _draws(config: LinearEval, fraction: float) -> int:
    return config.draws if fraction < 1 else 1


def _top(results: list[dict[str, Any]]) -> dict[str, float]:
    """The model's own figure, on the largest share of the labels."""
    return {"top1": [row["top1"] for row in results if row["features"] == "model"][-1]}
