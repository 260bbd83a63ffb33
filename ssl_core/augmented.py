"""The augmented linear evaluation: classifiers that meet a new view of each image in every epoch.

A batch of views passes the frozen network once, and all classifiers learn from its features: those of every label,
and those by which a setting is picked, each kept from the images that will judge it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core import counters, linear
from ssl_core.bench import Bench, Features, Source, Steps
from ssl_core.config import LinearEval, Views
from ssl_core.data import Rows
from ssl_core.events import Stopped
from ssl_core.linear import Classifiers, Descent, Scaling, Setting, Training
from ssl_core.views import ViewMaker

# As google-research/simclr trains its linear classifiers: SimCLR's crop and flip, and no change of colour.
CROP_AND_FLIP = Views(crop_area=(0.08, 1.0), jitter=0.0, grey=0.0)
_STREAM = 0x70726F62  # sets these views apart from those of pretraining under the same seed


def fit(
    config: LinearEval, bench: Bench, source: Source, found: Features, scaling: Scaling | None, rows: Rows
) -> Steps[tuple[Setting, Classifiers] | None]:
    """Train on views of the labelled images; return the picked setting and its classifier, None when asked to stop.

    found: scaled features of the un-augmented images; rows: positions in the training images.
    """
    y = bench.train_labels[torch.from_numpy(rows)]
    training = Training(len(bench.classes), config.epochs, config.batch_size, config.seed)
    settings = linear.grid(config.learning_rates, config.weight_decays)
    by_val = len(found.val) > 0 and len(rows) == len(found.train)
    folds = [] if by_val or len(settings) == 1 else linear.folds(y, config.validation_fraction, training)
    steps = training.epochs * training.batches(len(rows))
    whole, *others = (
        Descent(found.train.shape[1], settings, training.classes, steps, found.train) for _ in range(1 + len(folds))
    )
    lesson = _Lesson(bench, source, scaling, rows, config.seed)
    targets = F.one_hot(y, training.classes).to(found.train.dtype)
    for epoch in range(training.epochs):
        for places in training.order(epoch, len(rows)).split(training.batch_size):
            x, here = lesson(places, epoch), places.to(y.device)
            whole.step(x, targets[here])
            for other, kept in zip(others, folds, strict=True):
                taught = ~kept[here]
                other.step(x[taught], targets[here][taught])
            if bench.stopped():
                yield Stopped(bench.done)
                return None
        yield bench.step(len(rows))
    made = whole.classifiers()
    if len(settings) == 1:
        return settings[0], made
    if by_val:
        setting = linear.best(settings, *made.score(found.val, bench.val_labels))
    else:
        x = found.train[torch.from_numpy(rows)]
        setting = _picked(settings, [other.classifiers() for other in others], x, y, folds)
    return setting, made.only(settings.index(setting))


class _Lesson:
    """Makes the features of a batch's views, scaled like those of the un-augmented images."""

    def __init__(self, bench: Bench, source: Source, scaling: Scaling | None, rows: Rows, seed: int) -> None:
        self._source, self._scaling = source, scaling
        self._rows = torch.from_numpy(bench.trial.train[rows])
        self._images = bench.images(bench.trial.train[rows], source)
        self._maker = ViewMaker(CROP_AND_FLIP, source.side, counters.stream(seed, _STREAM))

    def __call__(self, places: Tensor, epoch: int) -> Tensor:
        """Return B×D of the labelled images at those places, int64 B."""
        rows = self._rows[places]
        made = self._source.views(self._maker(self._images.batch(rows), rows, epoch, 0))
        return made if self._scaling is None else self._scaling(made)


def _picked(
    settings: list[Setting], made: list[Classifiers], features: Tensor, labels: Tensor, folds: list[Tensor]
) -> Setting:
    """The setting that does best, over all folds, on the un-augmented images that each fold keeps back."""
    if not folds:
        return linear.fallback(settings)
    found = [each.score(features[kept], labels[kept]) for each, kept in zip(made, folds, strict=True)]
    right, loss = (torch.stack(part).sum(0) for part in zip(*found, strict=True))
    return linear.best(settings, right, loss)
