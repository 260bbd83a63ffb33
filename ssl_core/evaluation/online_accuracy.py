"""Online accuracy: a classifier's top-1 on held-out images, during training and after it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_core import rng
from ssl_core.config import TrainingRun
from ssl_core.config.fields import known
from ssl_core.data.dataset import Dataset, sample_rows, select_labels
from ssl_core.data.image_store import read_centre_crops
from ssl_core.data.label_budget import LabelBudget
from ssl_core.data.label_split import LabelSplit
from ssl_core.evaluation import accuracy
from ssl_core.evaluation.features import extract_features
from ssl_core.models.encoder import Encoder

_CHUNK = 4096  # images decoded at a time


@dataclass(frozen=True)
class HeldOutAccuracy:
    """Evaluates on the val split during training, on the test split after it; without a val split always on test."""

    dataset: Dataset
    classes: list[str]
    split: LabelSplit
    labels: int  # number of training labels
    seed: int
    images: Tensor  # uint8 N×S×S×3, centre crops, for the evaluations during training
    image_labels: Tensor  # int64 N

    @classmethod
    def of(cls, dataset: Dataset, resolved: TrainingRun, budget: LabelBudget) -> "HeldOutAccuracy | None":
        """Return the evaluation of a resolved config; None when no labelled image is held out."""
        if (split := budget.split) is None:
            return None
        stream = rng.stream(resolved.seed, rng.Stream.ONLINE_ACCURACY)
        rows = sample_rows(dataset, split.online_eval, known(resolved.evaluation.max_images), stream)
        labels = int((budget.labels >= 0).sum())
        images = read_centre_crops(dataset, rows, known(resolved.image_size))
        return cls(dataset, budget.classes, split, labels, resolved.seed, images, select_labels(dataset, rows))

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """Return the classifier's top-1 as `online/top1`, 0 to 1."""
        predicted = extract_features(encoder, self.images, "logits").argmax(1)
        return {"online/top1": (predicted == self.image_labels).double().mean().item()}

    def evaluate_test(self, encoder: Encoder) -> dict[str, Any]:
        """Return the classifier's accuracy on all test images, and the protocol."""
        chunks = torch.from_numpy(self.split.test).split(_CHUNK)
        images = (read_centre_crops(self.dataset, rows.numpy(), encoder.image_size) for rows in chunks)
        logits = torch.cat([extract_features(encoder, pixels, "logits") for pixels in images])
        protocol = (
            f"The network's own classifier after its last step, trained with {self.labels:,} labels; un-augmented"
            f" images at {encoder.image_size} px; top-1 on {self.split.test_name} ({len(self.split.test):,} images)."
        )
        found = accuracy.compute_metrics(logits, select_labels(self.dataset, self.split.test), self.classes, self.seed)
        return {"protocol": protocol, "labels": self.labels, "classes": len(self.classes), **found}
