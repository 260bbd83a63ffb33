"""The monitor: labelled images, prepared once, by which an encoder is judged while it trains.

Labels never reach the encoder. With a val split it judges there, so that the test split is not looked at before the
end.
"""

from dataclasses import dataclass

from torch import Tensor

from ssl_core import rng
from ssl_core.config import OnlineEvaluation, Pretrain
from ssl_core.data.dataset import Dataset, at_most, labels_of
from ssl_core.data.image_store import prepared
from ssl_core.data.label_split import Trial
from ssl_core.data.sampling import Rows
from ssl_core.errors import LabelsNeeded
from ssl_core.evaluation import knn, linear_eval, logistic_regression, online_probe
from ssl_core.evaluation.logistic_regression import Scaling, Setting, Training
from ssl_core.models.encoder import Encoder

_STREAM = 0x6D6F6E69  # sets the draw of images apart from other draws under the same seed


@dataclass(frozen=True)
class Monitor:
    """Two sets of prepared images, uint8 N×S×S×3, with their labels: one teaches, the other judges."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int
    settings: OnlineEvaluation

    @classmethod
    def of(cls, dataset: Dataset, resolved: Pretrain) -> "Monitor | None":
        """Return the monitor of a resolved config, or None when it asks for none or the images have too few labels."""
        if resolved.evaluation.every_epochs == 0:
            return None
        try:
            trial = Trial.of(dataset, resolved.subset, resolved.seed)
        except LabelsNeeded:
            return None
        most, stream = resolved.evaluation.max_images, rng.stream(resolved.seed, _STREAM)
        assert most != "auto"
        train, test = (at_most(dataset, rows, most, stream) for rows in (trial.train, _judges(trial)))
        assert resolved.image_size != "auto"
        images = (prepared(dataset, rows, resolved.image_size) for rows in (train, test))
        first, second = images
        classes = max(len(dataset.classes), int(dataset.labels.max()) + 1)
        labels = labels_of(dataset, train), labels_of(dataset, test)
        return cls(first, labels[0], second, labels[1], classes, resolved.evaluation)

    def judge(self, encoder: Encoder) -> dict[str, float]:
        """Return `online/knn` and `online/linear`, shares from 0 to 1."""
        features = [linear_eval.features(encoder, images) for images in (self.train, self.test)]
        return online_probe.judge(
            features[0],
            self.train_labels,
            features[1],
            self.test_labels,
            self.classes,
            self.settings.knn_k,
            self.settings.knn_temperature,
        )


def _judges(trial: Trial) -> Rows:
    return trial.val if len(trial.val) else trial.test


SETTING = Setting(learning_rate=10.0, weight_decay=1e-5)


EPOCHS = 20


def judge(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> dict[str, float]:
    """Return top-1, 0 to 1, of the vote as `online/knn` and of a short logistic regression as `online/linear`.

    train_features: N×D, train_labels: int64 N, and the same of the images that judge. Nothing is picked: the probe's
    settings are fixed.
    """
    scaling = Scaling.of(train_features)
    probe = logistic_regression.fit(scaling(train_features), train_labels, [SETTING], Training(classes, epochs=EPOCHS))
    right, _ = probe.score(scaling(test_features), test_labels)
    vote = knn.top1(train_features, train_labels, test_features, test_labels, classes, k, temperature)
    return {"online/knn": vote, "online/linear": right.item() / len(test_labels)}
