"""Logistic regression on features: a grid of learning rates and weight decays, trained in one pass.

Multinomial, from zero, by SGD with Nesterov momentum 0.9 and a cosine schedule. The classifiers of a grid share every
batch, so that their logits are one matrix product. The gradient is explicit: X'(p - y).

Features are read where they are, one batch at a time: `rows` selects images, and no other copy of them is made.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core import rng
from ssl_core.data.sampling import hold_out, order_by_class
from ssl_core.device import send

MOMENTUM = 0.9
FOLDS = 5
MAX_CROSS_VALIDATED = 1000  # labelled images; with more, one part is held out instead of cross-validation
_CHUNK_ROWS = 4096  # images that are scaled or scored at a time, at most
_CHUNK_BYTES = 4 * 2**20  # of the logits of images that are scored at a time


@dataclass(frozen=True)
class Scaling:
    """Standardises each feature, then normalises each image to unit length.

    This makes the learning rates of a grid comparable for every width and method.
    """

    mean: Tensor  # D
    factor: Tensor  # D

    @classmethod
    def fit(cls, features: Tensor) -> "Scaling":
        """Return the scaling by the statistics of features N×D; constant features become 0."""
        std = features.std(0, unbiased=False)
        constant = std <= 1e-6 * std.max()
        return cls(features.mean(0), torch.where(constant, 0.0, 1 / torch.where(constant, 1.0, std)))

    def __call__(self, features: Tensor) -> Tensor:
        """Return scaled features, N×D of N×D."""
        return self.scale_(features.clone())

    def scale_(self, features: Tensor) -> Tensor:
        """Scale features N×D in place, and return them."""
        for part in features.split(_CHUNK_ROWS):
            F.normalize(part.sub_(self.mean).mul_(self.factor), dim=1, out=part)
        return features


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class ProbeTraining:
    """The training of every classifier of a grid."""

    classes: int
    epochs: int = 100
    batch_size: int = 256
    seed: int = 0

    def num_batches(self, count: int) -> int:
        """Return the number of batches in an epoch of `count` images."""
        return math.ceil(count / self.batch_size)

    def shuffle(self, epoch: int, count: int) -> Tensor:
        """Return int64 0 … N-1 in an epoch's order; not shuffled when one batch holds all images."""
        return (
            torch.arange(count)
            if self.num_batches(count) == 1
            else rng.permutation(rng.stream(self.seed, epoch), count)
        )


@dataclass(frozen=True)
class Classifiers:
    """One linear classifier for each setting of a grid."""

    weights: Tensor  # D×(C·G), settings innermost, where a softmax over classes is fastest
    biases: Tensor  # C·G
    classes: int

    def compute_logits(self, features: Tensor) -> Tensor:
        """Return M×C×G of features M×D."""
        return torch.addmm(self.biases, features, self.weights).unflatten(1, (self.classes, -1))

    def select(self, index: int) -> "Classifiers":
        """Return the classifier of one setting, by its index in the grid."""
        size = len(self.biases) // self.classes
        return Classifiers(self.weights[:, index::size], self.biases[index::size], self.classes)

    def score(self, features: Tensor, labels: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (number correct, sum of cross-entropies), each G, over rows of features M×D with labels int64 M."""
        sums = self.biases.new_zeros(2, len(self.biases) // self.classes, dtype=torch.float64)
        for x, y in self._split(features, labels, rows):
            sums += self._score_chunk(x, y)
        correct, loss = sums.cpu()
        return correct, loss

    def _score_chunk(self, x: Tensor, y: Tensor) -> Tensor:
        """Number correct and sum of cross-entropies, float64 2×G; the logits are freed before those of the next."""
        logits = self.compute_logits(x)
        correct = (logits.argmax(1) == y[:, None]).sum(0).double()
        own = logits.gather(1, y[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]
        return torch.stack([correct, (logits.logsumexp(1) - own).double().sum(0)])

    def _split(self, features: Tensor, labels: Tensor, rows: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows' features and labels, in chunks of which the logits are small."""
        size = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // (self.biases.element_size() * len(self.biases))))
        if rows is None:
            yield from zip(features.split(size), labels.split(size), strict=True)
        else:
            yield from ((features[part], labels[part]) for part in rows.split(size))


def build_grid(learning_rates: Sequence[float], weight_decays: Sequence[float]) -> list[Setting]:
    """Return all pairs."""
    return [Setting(rate, decay) for rate in learning_rates for decay in weight_decays]


class GridSGD:
    """SGD of all classifiers of a grid, one batch at a time; `step_count` of `steps` are done."""

    def __init__(self, dim: int, settings: Sequence[Setting], classes: int, steps: int, like: Tensor) -> None:
        """dim: the features' width; like: a tensor of the dtype and on the device of the weights."""
        self._classes, self._steps, self.step_count = classes, steps, 0
        self._rates, self._decays = _per_column(settings, classes, like)
        width = len(settings) * classes
        self._weights, self._biases = like.new_zeros(dim, width), like.new_zeros(width)
        self._velocity, self._bias_velocity = torch.zeros_like(self._weights), torch.zeros_like(self._biases)

    def step(self, x: Tensor, y: Tensor) -> None:
        """Take a step on features B×D with labels int64 B."""
        rate = self._rates * (0.5 * (1 + math.cos(math.pi * self.step_count / self._steps)))
        error = torch.addmm(self._biases, x, self._weights).unflatten(1, (self._classes, -1)).softmax(1)
        own = y[:, None, None].expand(-1, 1, error.shape[2])  # B×1×G
        error.scatter_add_(1, own, error.new_full((), -1.0).expand_as(own))
        error = error.div_(len(x)).flatten(1)  # B×(C·G)
        gradient = torch.mm(x.T, error).add_(self._weights * self._decays)
        _nesterov_step_(self._weights, self._velocity, gradient, rate)
        _nesterov_step_(self._biases, self._bias_velocity, error.sum(0), rate)
        self.step_count += 1

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"tensors": self._tensors(), "taken": self.step_count}

    def load(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        for own, saved in zip(self._tensors(), state["tensors"], strict=True):
            own.copy_(saved)
        self.step_count = state["taken"]

    def build_classifiers(self) -> Classifiers:
        """Return the current classifiers, which share the weights."""
        return Classifiers(self._weights, self._biases, self._classes)

    def _tensors(self) -> list[Tensor]:
        return [self._weights, self._biases, self._velocity, self._bias_velocity]


def fit(
    features: Tensor,
    labels: Tensor,
    settings: Sequence[Setting],
    training: ProbeTraining,
    rows: Tensor | None = None,
) -> Classifiers:
    """Train one classifier for each setting on scaled features N×D with labels int64 N, or on those rows of them."""
    count, dim = len(labels) if rows is None else len(rows), features.shape[1]
    batches = training.num_batches(count)
    if rows is not None and (batches == 1 or count < dim):
        features, labels, rows = features[rows], labels[rows], None
    if count < dim:
        # From zero, weights stay in the span of the images: the same classifiers in N coordinates instead of D.
        basis = torch.linalg.qr(features.T).Q  # D×N
        inner = fit(features @ basis, labels, settings, training)
        return Classifiers(basis @ inner.weights, inner.biases, training.classes)
    sgd = GridSGD(dim, settings, training.classes, training.epochs * batches, features)
    for epoch in range(training.epochs):
        for batch in send(training.shuffle(epoch, count), features.device).split(training.batch_size):
            chosen = batch if rows is None else rows[batch]
            x = features if batches == 1 else features.index_select(0, chosen)
            sgd.step(x, labels if batches == 1 else labels.index_select(0, chosen))
    return sgd.build_classifiers()


def select_setting(
    features: Tensor,
    labels: Tensor,
    settings: Sequence[Setting],
    training: ProbeTraining,
    held_out: float,
    rows: Tensor | None = None,
) -> Setting:
    """Return the setting with the best accuracy on held-out labelled images; ties go to the lower cross-entropy.

    features: scaled, N×D; labels: int64 N; rows: those that are labelled, all by default.
    Five-fold cross-validation up to 1,000 images; with more, the share `held_out` is held out once. With fewer than two
    images per class nothing is held out, and the setting is `select_fallback`'s.
    """
    if len(settings) == 1:
        return settings[0]
    correct = torch.zeros(len(settings), dtype=torch.float64)
    loss = torch.zeros(len(settings), dtype=torch.float64)
    rows = torch.arange(len(labels), device=labels.device) if rows is None else rows
    folds = build_folds(labels[rows], held_out, training)
    for fold in folds:
        classifiers = fit(features, labels, settings, training, rows[~fold])
        scores = classifiers.score(features, labels, rows[fold])
        correct, loss = correct + scores[0], loss + scores[1]
    return select_best(settings, correct, loss) if folds else select_fallback(settings)


def build_folds(labels: Tensor, held_out: float, training: ProbeTraining) -> list[Tensor]:
    """Return boolean N masks of the held-out images of each fold, stratified by class.

    No folds with fewer than two images per class.
    """
    if len(labels) < 2 * training.classes and int(torch.bincount(labels, minlength=training.classes).min()) < 2:
        return []
    classes, stream = labels.cpu().numpy(), rng.stream(training.seed, len(labels))
    if len(labels) > MAX_CROSS_VALIDATED:
        return [torch.from_numpy(hold_out(classes, held_out, stream)).to(labels.device)]
    fold = torch.empty(len(labels), dtype=torch.int64)
    fold[torch.from_numpy(order_by_class(classes, stream))] = torch.arange(len(labels)) % FOLDS
    return [(fold == number).to(labels.device) for number in range(FOLDS) if (fold == number).any()]


def select_best(settings: Sequence[Setting], correct: Tensor, loss: Tensor) -> Setting:
    """Return the setting with the most correct predictions; ties go to the lowest loss. correct, loss: G each."""
    loss = loss.nan_to_num(nan=torch.inf)
    return min(zip((-correct).tolist(), loss.tolist(), settings, strict=True), key=lambda row: row[:2])[2]


def select_fallback(settings: Sequence[Setting]) -> Setting:
    """Return the setting for too few labels to validate with: the median rate, the strongest decay."""
    rates = sorted({setting.learning_rate for setting in settings})
    return Setting(rates[len(rates) // 2], max(setting.weight_decay for setting in settings))


def _per_column(settings: Sequence[Setting], classes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The rates and decays, each C·G."""
    columns = torch.tensor([(setting.learning_rate, setting.weight_decay) for setting in settings])
    rates, decays = send(columns.to(like.dtype), like.device).repeat(classes, 1).unbind(1)
    return rates, decays


def _nesterov_step_(value: Tensor, velocity: Tensor, gradient: Tensor, rate: Tensor) -> None:
    velocity.mul_(MOMENTUM).add_(gradient)
    value.sub_(gradient.add_(velocity, alpha=MOMENTUM).mul_(rate))
