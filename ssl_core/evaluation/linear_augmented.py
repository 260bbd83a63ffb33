"""The augmented linear evaluation: classifiers that meet a new view of each image in every epoch.

A batch of views passes the frozen network once, and all classifiers learn from its features: those of every label,
and those by which a setting is picked, each kept from the images that will judge it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core import rng
from ssl_core.augment.pipeline import ViewMaker
from ssl_core.config import LinearEval, Views
from ssl_core.data.sampling import Rows
from ssl_core.evaluation import logistic_regression
from ssl_core.evaluation.features import Evaluation, Features, FeatureSource, Steps
from ssl_core.evaluation.linear_checkpoint import LinearEvalCheckpoint, State
from ssl_core.evaluation.logistic_regression import Classifiers, GridSGD, ProbeTraining, Scaling, Setting
from ssl_core.events import Stopped

# As google-research/simclr trains its linear classifiers: SimCLR's crop and flip, and no change of colour.
CROP_AND_FLIP = Views(crop_area=(0.08, 1.0), jitter=0.0, grey=0.0)
_POINTS = 2_000  # about so many times a fit tells how far it is


def fit(
    config: LinearEval,
    evaluation: Evaluation,
    source: FeatureSource,
    found: Features,
    scaling: Scaling | None,
    rows: Rows,
    checkpoint: LinearEvalCheckpoint,
) -> Steps[tuple[Setting, Classifiers] | None]:
    """Train on views of the labelled images; return the picked setting and its classifier, None when asked to stop.

    found: scaled features of the un-augmented images; rows: positions in the training images; notebook: where a fit
    that an earlier attempt began is gone on with.
    """
    y = evaluation.train_labels[torch.from_numpy(rows)]
    training = ProbeTraining(len(evaluation.classes), config.epochs, config.batch_size, config.seed)
    settings = logistic_regression.grid(config.learning_rates, config.weight_decays)
    by_val = len(found.val) > 0 and len(rows) == len(found.train)
    folds = [] if by_val or len(settings) == 1 else logistic_regression.folds(y, config.validation_fraction, training)
    cohort = _FoldProbes(settings, training, folds, y, found.train)
    if state := checkpoint.under_way():
        cohort.load(state)
        evaluation.skip(cohort.taken)
    lesson = _AugmentedFeatures(evaluation, source, scaling, rows, config.seed)
    batches = training.batches(len(rows))
    told_every = max(1, training.epochs * batches // _POINTS)
    for epoch in range(cohort.taken // batches, training.epochs):
        order = training.order(epoch, len(rows)).split(training.batch_size)
        for places in order[cohort.taken - epoch * batches :]:
            cohort.step(lesson(places, epoch), places.to(y.device))
            progress = evaluation.step(len(places))
            if cohort.taken % told_every == 0:
                yield progress
            if evaluation.stopped():
                yield from checkpoint.save(evaluation.done, cohort.state)
                yield Stopped(evaluation.done)
                return None
            yield from checkpoint.keep(evaluation.done, cohort.state)
    made = cohort.whole.classifiers()
    if by_val:
        setting = logistic_regression.best(settings, *made.score(found.val, evaluation.val_labels))
    else:
        setting = cohort.picked(found.train[torch.from_numpy(rows)])
    return setting, made.only(settings.index(setting))


class _FoldProbes:
    """Those who learn together: `whole` from all labelled images, and for each fold one from all but the fold's."""

    def __init__(
        self, settings: list[Setting], training: ProbeTraining, folds: list[Tensor], labels: Tensor, like: Tensor
    ) -> None:
        steps = training.epochs * training.batches(len(labels))
        self.whole, *self._others = (
            GridSGD(like.shape[1], settings, training.classes, steps, like) for _ in range(1 + len(folds))
        )
        self._settings, self._folds, self._labels = settings, folds, labels
        self._targets = F.one_hot(labels, training.classes).to(like.dtype)

    @property
    def taken(self) -> int:
        """How many steps they took."""
        return self.whole.taken

    def state(self) -> State:
        """Return what it takes to go on from here."""
        return {"learners": [learner.state() for learner in (self.whole, *self._others)]}

    def load(self, state: State) -> None:
        """Go on from what `state` returned."""
        for learner, kept in zip((self.whole, *self._others), state["learners"], strict=True):
            learner.load(kept)

    def step(self, x: Tensor, places: Tensor) -> None:
        """Learn from features B×D of the labelled images at those places."""
        y = self._targets[places]
        self.whole.step(x, y)
        for other, kept in zip(self._others, self._folds, strict=True):
            taught = ~kept[places]
            other.step(x[taught], y[taught])

    def picked(self, features: Tensor) -> Setting:
        """Return the setting that does best, over all folds, on the images that each fold keeps back.

        features: N×D of the un-augmented labelled images.
        """
        if not self._folds:
            return self._settings[0] if len(self._settings) == 1 else logistic_regression.fallback(self._settings)
        right, loss = torch.zeros(2, len(self._settings), dtype=torch.float64)
        for other, kept in zip(self._others, self._folds, strict=True):
            scored = other.classifiers().score(features[kept], self._labels[kept])
            right, loss = right + scored[0], loss + scored[1]
        return logistic_regression.best(self._settings, right, loss)


class _AugmentedFeatures:
    """Makes the features of a batch's views, scaled like those of the un-augmented images."""

    def __init__(
        self, evaluation: Evaluation, source: FeatureSource, scaling: Scaling | None, rows: Rows, seed: int
    ) -> None:
        self._source, self._scaling = source, scaling
        self._rows = torch.from_numpy(evaluation.split.train[rows])
        self._images = evaluation.images(evaluation.split.train[rows], source)
        self._maker = ViewMaker(CROP_AND_FLIP, source.side, rng.stream(seed, rng.Stream.PROBE_VIEWS))

    def __call__(self, places: Tensor, epoch: int) -> Tensor:
        """Return B×D of the labelled images at those places, int64 B."""
        rows = self._rows[places]
        made = self._source.views(self._maker(self._images.batch(rows), rows, epoch, 0))
        return made if self._scaling is None else self._scaling(made)
