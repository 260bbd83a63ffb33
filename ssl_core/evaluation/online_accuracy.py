"""Online accuracy: a classifier's top-1 on held-out images, during training and after it.

All processes of a run encode; the first one has the result.
"""

from collections.abc import Iterator
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
from ssl_core.device import send
from ssl_core.evaluation import accuracy
from ssl_core.evaluation.distributed_features import extract_together, select_share
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
    images: Tensor  # for the evaluations during training: this process's share, as centre crops uint8 n×S×S×C
    image_labels: Tensor  # int64 N, of all

    @classmethod
    def of(cls, dataset: Dataset, resolved: TrainingRun, budget: LabelBudget) -> "HeldOutAccuracy | None":
        """Return the evaluation of a resolved config; None when no labelled image is held out."""
        if (split := budget.split) is None:
            return None
        stream = rng.stream(resolved.seed, rng.Stream.ONLINE_ACCURACY)
        rows = sample_rows(dataset, split.online_eval, known(resolved.evaluation.max_images), stream)
        labels = int((budget.labels >= 0).sum())
        images = read_centre_crops(dataset, select_share(rows), known(resolved.image_size))
        return cls(dataset, budget.classes, split, labels, resolved.seed, images, select_labels(dataset, rows))

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """Return the top-1 as `online/top1`, 0 to 1; nothing but in the first process. All call it together."""
        logits = extract_together(encoder, self.images, len(self.image_labels), "logits")
        if logits is None:
            return {}
        is_correct = logits.argmax(1) == send(self.image_labels, logits.device)
        return {"online/top1": is_correct.double().mean().item()}

    def evaluate_test(self, encoder: Encoder) -> dict[str, Any]:
        """Return the accuracy on all test images, and the protocol; nothing but in the first process.

        All call it together.
        """
        parts = list(self._extract_test_logits(encoder))
        if not parts:
            return {}
        logits = torch.cat(parts)
        protocol = (
            f"The network's own classifier after its last step, trained with {self.labels:,} labels; un-augmented"
            f" images at {encoder.image_size} px; top-1 on {self.split.test_name} ({len(self.split.test):,} images)."
        )
        taught, true = (select_labels(self.dataset, rows) for rows in (self.split.train, self.split.test))
        found = accuracy.compute_metrics(logits, true, self.classes, self.seed)
        unseen = accuracy.warn_of_unseen_classes(taught, true, self.classes)
        return {"protocol": protocol, "labels": self.labels, "classes": len(self.classes), **unseen, **found}

    def _extract_test_logits(self, encoder: Encoder) -> Iterator[Tensor]:
        """Chunks of the test images' logits, on the CPU, as those of all may not fit a GPU; in the first process."""
        for start in range(0, len(self.split.test), _CHUNK):
            rows = self.split.test[start : start + _CHUNK]
            share = read_centre_crops(self.dataset, select_share(rows), encoder.image_size)
            logits = extract_together(encoder, share, len(rows), "logits")
            if logits is not None:
                yield logits.cpu()
