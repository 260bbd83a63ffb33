"""Online evaluation: how good the features are, measured in a moment while the encoder trains."""

from torch import Tensor

from ssl_core.evaluation import knn, logistic_regression
from ssl_core.evaluation.logistic_regression import Scaling, Setting, Training

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
