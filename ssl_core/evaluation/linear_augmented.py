"""Linear evaluation on augmented images: the classifiers see a new view of each image in every epoch.

A batch of views passes the frozen network once, and all classifiers are trained on its features: those of all labelled
images, and those of the cross-validation folds.
"""

import torch
from torch import Tensor

from ssl_core import rng
from ssl_core.augment.pipeline import ViewMaker
from ssl_core.config import LinearEval, Views
from ssl_core.data.sampling import Rows
from ssl_core.evaluation import logistic_regression
from ssl_core.evaluation.features import Evaluation, EventStream, Features, FeatureSource
from ssl_core.evaluation.linear_checkpoint import LinearEvalCheckpoint, State
from ssl_core.evaluation.logistic_regression import Classifiers, GridSGD, ProbeTraining, Scaling, Setting
from ssl_core.events import Stopped

# As google-research/simclr trains its linear classifiers: SimCLR's crop and flip, without colour distortion.
CROP_AND_FLIP = Views(crop_area=(0.08, 1.0), jitter=0.0, grey=0.0)
_PROGRESS_EVENTS = 2_000  # about so many of each fit


def fit(
    config: LinearEval,
    evaluation: Evaluation,
    source: FeatureSource,
    features: Features,
    scaling: Scaling | None,
    rows: Rows,
    checkpoint: LinearEvalCheckpoint,
) -> EventStream[tuple[Setting, Classifiers] | None]:
    """Train on views of the labelled images; return the selected setting and its classifier, None when stopped.

    features: scaled, un-augmented; rows: positions in the training images; checkpoint: may have this fit's state.
    """
    labelled = torch.from_numpy(rows).to(features.train.device)
    y = evaluation.train_labels[labelled]
    training = ProbeTraining(len(evaluation.classes), config.epochs, config.batch_size, config.seed)
    settings = logistic_regression.build_grid(config.learning_rates, config.weight_decays)
    by_val = len(features.val) > 0 and len(rows) == len(features.train)
    folds = []
    if not by_val and len(settings) > 1:
        folds = logistic_regression.build_folds(y, config.validation_fraction, training)
    probes = _FoldProbes(settings, training, folds, y, features.train)
    if state := checkpoint.take_fit_state():
        probes.load(state)
        evaluation.skip_steps(probes.step_count)
    views = _AugmentedFeatures(evaluation, source, scaling, rows, config.seed)
    batches = training.num_batches(len(rows))
    report_every = max(1, training.epochs * batches // _PROGRESS_EVENTS)
    for epoch in range(probes.step_count // batches, training.epochs):
        order = training.shuffle(epoch, len(rows)).split(training.batch_size)
        for indices in order[probes.step_count - epoch * batches :]:
            probes.step(views.extract(indices, epoch), indices.to(y.device))
            progress = evaluation.report_step(len(indices))
            if probes.step_count % report_every == 0:
                yield progress
            if evaluation.is_stopped():
                yield from checkpoint.save(evaluation.step, probes.state)
                yield Stopped(evaluation.step)
                return None
            yield from checkpoint.save_if_due(evaluation.step, probes.state)
    classifiers = probes.full.build_classifiers()
    if by_val:
        setting = logistic_regression.select_best(settings, *classifiers.score(features.val, evaluation.val_labels))
    else:
        setting = probes.select_setting(features.train, evaluation.train_labels, labelled)
    return setting, classifiers.select(settings.index(setting))


class _FoldProbes:
    """Probes trained together: `full` on all labelled images, and one for each fold on all but its held-out images."""

    def __init__(
        self, settings: list[Setting], training: ProbeTraining, folds: list[Tensor], labels: Tensor, like: Tensor
    ) -> None:
        steps = training.epochs * training.num_batches(len(labels))
        self.full, *self._fold_probes = (
            GridSGD(like.shape[1], settings, training.classes, steps, like) for _ in range(1 + len(folds))
        )
        self._settings, self._folds, self._labels = settings, folds, labels

    @property
    def step_count(self) -> int:
        """Number of steps done."""
        return self.full.step_count

    def state(self) -> State:
        """Return the state for a checkpoint."""
        return {"learners": [probe.state() for probe in (self.full, *self._fold_probes)]}

    def load(self, state: State) -> None:
        """Load what `state` returned."""
        for probe, saved in zip((self.full, *self._fold_probes), state["learners"], strict=True):
            probe.load(saved)

    def step(self, x: Tensor, indices: Tensor) -> None:
        """Take a step on features B×D of the labelled images at those indices."""
        y = self._labels[indices]
        self.full.step(x, y)
        for probe, fold in zip(self._fold_probes, self._folds, strict=True):
            training = ~fold[indices]
            probe.step(x[training], y[training])

    def select_setting(self, features: Tensor, labels: Tensor, labelled: Tensor) -> Setting:
        """Return the setting with the best accuracy on the held-out images of all folds.

        features: N×D of the un-augmented training images; labels: int64 N; labelled: the rows that are trained on.
        """
        if not self._folds:
            only = len(self._settings) == 1
            return self._settings[0] if only else logistic_regression.select_fallback(self._settings)
        correct, loss = torch.zeros(2, len(self._settings), dtype=torch.float64)
        for probe, fold in zip(self._fold_probes, self._folds, strict=True):
            scores = probe.build_classifiers().score(features, labels, labelled[fold])
            correct, loss = correct + scores[0], loss + scores[1]
        return logistic_regression.select_best(self._settings, correct, loss)


class _AugmentedFeatures:
    """Features of views of the labelled images, scaled like those of the un-augmented images."""

    def __init__(
        self, evaluation: Evaluation, source: FeatureSource, scaling: Scaling | None, rows: Rows, seed: int
    ) -> None:
        self._source, self._scaling = source, scaling
        self._rows = torch.from_numpy(evaluation.split.train[rows])
        self._images = evaluation.open_images(evaluation.split.train[rows], source)
        stream = rng.stream(seed, rng.Stream.PROBE_VIEWS)
        self._view_maker = ViewMaker(CROP_AND_FLIP, source.image_size, stream, channels=evaluation.channels)

    def extract(self, indices: Tensor, epoch: int) -> Tensor:
        """Return B×D of an epoch's views of the labelled images at those indices, int64 B."""
        rows = self._rows[indices]
        images = self._images.batch(rows).to(self._images.device)
        features = self._source.extract_views(self._view_maker(images, rows, epoch, 0))
        return features if self._scaling is None else self._scaling(features)
