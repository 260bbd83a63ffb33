"""The examiner: images that a classifier was not taught with, by which it is judged while it trains and at the end."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_core import rng
from ssl_core.config import Labelled
from ssl_core.data.dataset import Dataset, at_most, labels_of
from ssl_core.data.image_store import prepared
from ssl_core.data.label_budget import Teaching
from ssl_core.data.label_split import Trial
from ssl_core.evaluation import accuracy, linear_eval
from ssl_core.models.encoder import Encoder

_STREAM = 0x6578616D  # sets the draw of images apart from other draws under the same seed
_CHUNK = 4096  # images prepared at a time


@dataclass(frozen=True)
class Examiner:
    """With a val split it judges there while the classifier trains, so that the test split is not looked at before."""

    dataset: Dataset
    classes: list[str]
    trial: Trial
    labels: int  # how many the classifier is told
    seed: int
    images: Tensor  # uint8 N×S×S×3, prepared: of the judging while it trains
    image_labels: Tensor  # int64 N

    @classmethod
    def of(cls, dataset: Dataset, resolved: Labelled, teaching: Teaching) -> "Examiner | None":
        """Return the examiner of a resolved config; None when no image can judge."""
        if (trial := teaching.trial) is None:
            return None
        assert resolved.image_size != "auto"
        most, stream = resolved.evaluation.max_images, rng.stream(resolved.seed, _STREAM)
        assert most != "auto"
        rows = at_most(dataset, trial.val if len(trial.val) else trial.test, most, stream)
        told = int((teaching.labels >= 0).sum())
        images = prepared(dataset, rows, resolved.image_size)
        return cls(dataset, teaching.classes, trial, told, resolved.seed, images, labels_of(dataset, rows))

    def judge(self, encoder: Encoder) -> dict[str, float]:
        """Return the classifier's own top-1 as `online/top1`, a share from 0 to 1."""
        guesses = linear_eval.features(encoder, self.images, "logits").argmax(1)
        return {"online/top1": (guesses == self.image_labels).double().mean().item()}

    def verdict(self, encoder: Encoder) -> dict[str, Any]:
        """Return the classifier's `scores` on all images that judge, and by which protocol."""
        chunks = torch.from_numpy(self.trial.test).split(_CHUNK)
        images = (prepared(self.dataset, rows.numpy(), encoder.image_size) for rows in chunks)
        logits = torch.cat([linear_eval.features(encoder, pixels, "logits") for pixels in images])
        protocol = (
            f"The network's own classifier after its last step, taught {self.labels:,} labels; un-augmented images at"
            f" {encoder.image_size} px; top-1 on {self.trial.judge} ({len(self.trial.test):,} images)."
        )
        found = accuracy.of(logits, labels_of(self.dataset, self.trial.test), self.classes, self.seed)
        return {"protocol": protocol, "labels": self.labels, "classes": len(self.classes), **found}
