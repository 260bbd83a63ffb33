"""The online probe: kNN and a linear classifier on an encoder's features while the encoder trains.

All processes of a run encode; the first one fits and evaluates the classifiers, where the features are: on its device.
The encoder never sees the labels. With a val split the accuracies are of that split, which leaves the test split unused
until the end.
"""

from dataclasses import dataclass

from torch import Tensor

from ssl_core import rng
from ssl_core.config import OnlineEvaluation, TrainingRun
from ssl_core.config.fields import known
from ssl_core.data.dataset import Dataset, sample_rows, select_labels
from ssl_core.data.image_store import read_centre_crops
from ssl_core.data.label_split import LabelSplit
from ssl_core.device import send
from ssl_core.errors import LabelsNeeded
from ssl_core.evaluation import knn, logistic_regression
from ssl_core.evaluation.distributed_features import extract_together, select_share
from ssl_core.evaluation.logistic_regression import ProbeTraining, Scaling, Setting
from ssl_core.models.encoder import Encoder

_SETTING = Setting(learning_rate=10.0, weight_decay=1e-5)  # of the linear classifier; nothing is selected online
_EPOCHS = 20


@dataclass(frozen=True)
class OnlineProbe:
    """Labelled images to fit and to evaluate on."""

    train: Tensor  # this process's share of them, as centre crops uint8 n×S×S×C
    train_labels: Tensor  # int64 N, of all
    test: Tensor
    test_labels: Tensor
    classes: int
    settings: OnlineEvaluation

    @classmethod
    def of(cls, dataset: Dataset, resolved: TrainingRun, settings: OnlineEvaluation) -> "OnlineProbe | None":
        """Return the probe of a resolved config, or None when it is disabled or there are too few labels."""
        if settings.every_epochs == 0:
            return None
        try:
            split = LabelSplit.of(dataset, resolved.subset, resolved.seed)
        except LabelsNeeded:
            return None
        most, stream = known(settings.max_images), rng.stream(resolved.seed, rng.Stream.ONLINE_PROBE)
        train, test = (sample_rows(dataset, rows, most, stream) for rows in (split.train, split.online_eval))
        size = known(resolved.image_size)
        return cls(
            read_centre_crops(dataset, select_share(train), size),
            select_labels(dataset, train),
            read_centre_crops(dataset, select_share(test), size),
            select_labels(dataset, test),
            len(dataset.class_names),
            settings,
        )

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """Return `online/knn` and `online/linear`, 0 to 1; nothing but in the first process. All call it together."""
        train = extract_together(encoder, self.train, len(self.train_labels))
        test = extract_together(encoder, self.test, len(self.test_labels))
        if train is None or test is None:
            return {}
        return evaluate_features(train, self.train_labels, test, self.test_labels, self.classes, self.settings)


def evaluate_features(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    classes: int,
    settings: OnlineEvaluation,
) -> dict[str, float]:
    """Return top-1, 0 to 1, of the kNN vote as `online/knn` and of a short logistic regression as `online/linear`.

    train, test: features N×D; their labels: int64 N, which are sent to the features' device.
    """
    train_labels, test_labels = (send(labels, train.device) for labels in (train_labels, test_labels))
    scaling = Scaling.fit(train)
    probe = logistic_regression.fit(scaling(train), train_labels, [_SETTING], ProbeTraining(classes, epochs=_EPOCHS))
    correct, _ = probe.score(scaling(test), test_labels)
    top1 = knn.compute_top1(train, train_labels, test, test_labels, classes, settings.knn_k, settings.knn_temperature)
    return {"online/knn": top1, "online/linear": correct.item() / len(test_labels)}
