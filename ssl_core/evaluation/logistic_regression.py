"""Linear classifiers on cached features: a whole grid of learning rates and weight decays, trained in one pass.

Multinomial logistic regression from zero, by SGD with Nesterov momentum 0.9 and a cosine schedule. The classifiers of
a grid share every batch, so that their logits are one matrix product. The gradient is written out: it is X'(p - y).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core import rng
from ssl_core.data.sampling import hold_out, order_by_class

MOMENTUM = 0.9
FOLDS = 5
CROSS_VALIDATED = 1000  # at most so many labelled images are cross-validated; of more, a part is held out once


@dataclass(frozen=True)
class Scaling:
    """Centres each feature, divides it by its standard deviation, then brings every image to length 1.

    The learning rates of a grid then mean the same for every width and method.
    """

    mean: Tensor  # D
    factor: Tensor  # D

    @classmethod
    def of(cls, features: Tensor) -> "Scaling":
        """Of features N×D of images whose labels need not be known."""
        std = features.std(0, unbiased=False)
        constant = std <= 1e-6 * std.max()
        return cls(features.mean(0), torch.where(constant, 0.0, 1 / torch.where(constant, 1.0, std)))

    def __call__(self, features: Tensor) -> Tensor:
        return F.normalize((features - self.mean) * self.factor, dim=1)


@dataclass(frozen=True)
class Setting:
    """One place in the grid."""

    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class ProbeTraining:
    """How every classifier is trained."""

    classes: int
    epochs: int = 100
    batch_size: int = 256
    seed: int = 0

    def batches(self, count: int) -> int:
        """Return the number of batches in an epoch of so many images."""
        return math.ceil(count / self.batch_size)

    def order(self, epoch: int, count: int) -> Tensor:
        """Return int64 0 … N-1 in an epoch's order; where one batch holds them all, as they come."""
        whole = self.batches(count) == 1
        return torch.arange(count) if whole else rng.permutation(rng.stream(self.seed, epoch), count)


@dataclass(frozen=True)
class Classifiers:
    """One linear classifier for each setting of a grid."""

    weights: Tensor  # D×(C·G): the settings lie side by side, where a softmax over classes is fastest
    biases: Tensor  # C·G
    classes: int

    def logits(self, features: Tensor) -> Tensor:
        """Return M×C×G of features M×D."""
        return torch.addmm(self.biases, features, self.weights).unflatten(1, (self.classes, -1))

    def only(self, place: int) -> "Classifiers":
        """Return the classifier of one setting, by its place in the grid."""
        grid = len(self.biases) // self.classes
        return Classifiers(self.weights[:, place::grid], self.biases[place::grid], self.classes)

    def score(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (number right, sum of cross-entropies), each G, over features M×D with labels int64 M."""
        grid = len(self.biases) // self.classes
        right, loss = torch.zeros(grid, dtype=torch.float64), torch.zeros(grid, dtype=torch.float64)
        for x, y in zip(features.split(4096), labels.split(4096), strict=True):
            logits = self.logits(x)
            right += (logits.argmax(1) == y[:, None]).sum(0).double().cpu()
            chosen = logits.gather(1, y[:, None, None].expand(-1, 1, grid))[:, 0]
            loss += (logits.logsumexp(1) - chosen).double().sum(0).cpu()
        return right, loss


def grid(learning_rates: Sequence[float], weight_decays: Sequence[float]) -> list[Setting]:
    """Return every pair."""
    return [Setting(rate, decay) for rate in learning_rates for decay in weight_decays]


class GridSGD:
    """The classifiers of a grid while they learn, one batch at a time: `taken` of `steps` were."""

    def __init__(self, dim: int, settings: Sequence[Setting], classes: int, steps: int, like: Tensor) -> None:
        """dim: the features' width; like: a tensor of the type and on the device that are wanted."""
        self._classes, self._steps, self.taken = classes, steps, 0
        self._rates, self._decays = _per_column(settings, classes, like)
        width = len(settings) * classes
        self._weights, self._biases = like.new_zeros(dim, width), like.new_zeros(width)
        self._velocity, self._bias_velocity = torch.zeros_like(self._weights), torch.zeros_like(self._biases)

    def step(self, x: Tensor, y: Tensor) -> None:
        """Learn from features B×D and their labels as unit vectors B×C."""
        rate = self._rates * (0.5 * (1 + math.cos(math.pi * self.taken / self._steps)))
        error = torch.addmm(self._biases, x, self._weights).unflatten(1, (self._classes, -1)).softmax(1)
        error = error.sub_(y[:, :, None]).div_(len(x)).flatten(1)  # B×(C·G)
        slope = torch.mm(x.T, error).add_(self._weights * self._decays)
        _nesterov_(self._weights, self._velocity, slope, rate)
        _nesterov_(self._biases, self._bias_velocity, error.sum(0), rate)
        self.taken += 1

    def state(self) -> dict[str, Any]:
        """Return what it takes to go on from here."""
        return {"tensors": self._tensors(), "taken": self.taken}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        for mine, kept in zip(self._tensors(), state["tensors"], strict=True):
            mine.copy_(kept)
        self.taken = state["taken"]

    def classifiers(self) -> Classifiers:
        """Return the classifiers as they are now."""
        return Classifiers(self._weights, self._biases, self._classes)

    def _tensors(self) -> list[Tensor]:
        return [self._weights, self._biases, self._velocity, self._bias_velocity]


def fit(features: Tensor, labels: Tensor, settings: Sequence[Setting], training: ProbeTraining) -> Classifiers:
    """Train one classifier for each setting on scaled features N×D with labels int64 N."""
    count, dim = features.shape
    if count < dim:
        # From zero, weights never leave the span of the images: the same classifiers in N coordinates instead of D.
        basis = torch.linalg.qr(features.T).Q  # D×N
        inner = fit(features @ basis, labels, settings, training)
        return Classifiers(basis @ inner.weights, inner.biases, training.classes)
    targets = F.one_hot(labels, training.classes).to(features.dtype)
    batches = training.batches(count)
    descent = GridSGD(dim, settings, training.classes, training.epochs * batches, features)
    for epoch in range(training.epochs):
        for rows in training.order(epoch, count).to(features.device).split(training.batch_size):
            x = features if batches == 1 else features.index_select(0, rows)
            y = targets if batches == 1 else targets.index_select(0, rows)
            descent.step(x, y)
    return descent.classifiers()


def pick(
    features: Tensor, labels: Tensor, settings: Sequence[Setting], training: ProbeTraining, held_out: float
) -> Setting:
    """Return the setting that does best on labelled images kept from training; ties go to the lower cross-entropy.

    Up to 1,000 images are cross-validated, five-fold where classes allow; of more, the share `held_out` is kept once.
    With fewer than two images per class nothing can be kept, and the middle of the grid is taken.
    """
    if len(settings) == 1:
        return settings[0]
    right = torch.zeros(len(settings), dtype=torch.float64)
    loss = torch.zeros(len(settings), dtype=torch.float64)
    kept_back = folds(labels, held_out, training)
    for kept in kept_back:
        fitted = fit(features[~kept], labels[~kept], settings, training)
        scores = fitted.score(features[kept], labels[kept])
        right, loss = right + scores[0], loss + scores[1]
    return best(settings, right, loss) if kept_back else fallback(settings)


def folds(labels: Tensor, held_out: float, training: ProbeTraining) -> list[Tensor]:
    """Return boolean N masks of what each fold keeps back, every class spread over the folds as evenly as it can be.

    None at all when there are fewer than two images per class.
    """
    if len(labels) < 2 * training.classes and int(torch.bincount(labels, minlength=training.classes).min()) < 2:
        return []
    known, stream = labels.cpu().numpy(), rng.stream(training.seed, len(labels))
    if len(labels) > CROSS_VALIDATED:
        return [torch.from_numpy(hold_out(known, held_out, stream)).to(labels.device)]
    fold = torch.empty(len(labels), dtype=torch.int64)
    fold[torch.from_numpy(order_by_class(known, stream))] = torch.arange(len(labels)) % FOLDS
    return [(fold == number).to(labels.device) for number in range(FOLDS) if (fold == number).any()]


def best(settings: Sequence[Setting], right: Tensor, loss: Tensor) -> Setting:
    """Return the setting with most right, the lowest loss among equals."""
    loss = loss.nan_to_num(nan=torch.inf)
    return min(zip((-right).tolist(), loss.tolist(), settings, strict=True), key=lambda row: row[:2])[2]


def fallback(settings: Sequence[Setting]) -> Setting:
    """Return the setting for label sets too small to pick with: the median rate, the strongest decay."""
    rates = sorted({setting.learning_rate for setting in settings})
    return Setting(rates[len(rates) // 2], max(setting.weight_decay for setting in settings))


def _per_column(settings: Sequence[Setting], classes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The rates and decays, each C·G."""
    columns = torch.tensor([(setting.learning_rate, setting.weight_decay) for setting in settings])
    rates, decays = columns.to(like).repeat(classes, 1).unbind(1)
    return rates, decays


def _nesterov_(value: Tensor, velocity: Tensor, gradient: Tensor, rate: Tensor) -> None:
    velocity.mul_(MOMENTUM).add_(gradient)
    value.sub_(gradient.add_(velocity, alpha=MOMENTUM).mul_(rate))
