"""Label budget: the training rows of a run with labels, the labels that enter its loss, and its label split."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.config import Labelled
from ssl_core.config.requirements import no_classifier
from ssl_core.data.dataset import Dataset
from ssl_core.data.label_split import LabelSplit, draw_labelled
from ssl_core.data.sampling import Rows
from ssl_core.errors import ConfigUnfit, LabelsNeeded

UNLABELLED = -1  # the label of an image outside the budget


@dataclass(frozen=True)
class LabelBudget:
    """No row of `split.test` is trained on, with its label or without."""

    classes: list[str]
    rows: Rows  # to train on, ascending
    labels: Tensor  # int64, of every row of the dataset; UNLABELLED outside the budget
    split: LabelSplit | None  # None: no images to evaluate on

    @classmethod
    def of(cls, dataset: Dataset, resolved: Labelled, card: Mapping[str, Any] | None) -> "LabelBudget":
        """Return the budget of a resolved config; card: the model's, where the job has one.

        Raises LabelsNeeded, and ConfigUnfit when `label_rows` or the model's classifier does not fit the dataset.
        """
        if resolved.model_is_teacher:
            return _budget_for_distillation(dataset, resolved, (card or {}).get("classifier"))
        split = _limit_labels(LabelSplit.of(dataset, resolved.subset, resolved.seed), dataset, resolved)
        return cls(dataset.class_names, split.train, _mask_labels(dataset, split.train), split)


def _budget_for_distillation(dataset: Dataset, resolved: Labelled, classifier: Mapping[str, Any] | None) -> LabelBudget:
    """Train on all images but the test rows; labels are in the budget where they enter the loss."""
    if not classifier:
        raise ConfigUnfit(no_classifier())
    classes = list(classifier["classes"])
    split = (
        _limit_labels(LabelSplit.of(dataset, resolved.subset, resolved.seed), dataset, resolved)
        if resolved.uses_labels
        else _split_for_distillation(dataset, resolved)
    )
    labelled = split.train if split and resolved.uses_labels else np.empty(0, dtype=np.int64)
    if dataset.class_names != classes:
        if resolved.uses_labels:
            raise ConfigUnfit("The model's classes are not those of the dataset, so its labels cannot be used.")
        split = None
    rows = dataset.indices("train", resolved.subset, resolved.seed)
    rows = np.setdiff1d(rows, split.test) if split else rows
    return LabelBudget(classes, rows, _mask_labels(dataset, labelled), split)


def _split_for_distillation(dataset: Dataset, resolved: Labelled) -> LabelSplit | None:
    """Return the usual split; without labelled training images, one of test rows alone."""
    try:
        return LabelSplit.of(dataset, resolved.subset, resolved.seed)
    except LabelsNeeded:
        for name in ("test", "val"):
            rows = dataset.select_labelled(dataset.indices(name))
            if len(rows):
                return LabelSplit(rows[:0], rows[:0], rows, f"the {name} split")
    return None


def _limit_labels(split: LabelSplit, dataset: Dataset, resolved: Labelled) -> LabelSplit:
    """Return the split with the training rows that `label_fraction` or `label_rows` selects."""
    if resolved.label_rows is None:
        drawn = draw_labelled(dataset.labels[split.train], resolved.label_fraction, resolved.seed, 0)
        limited = replace(split, train=split.train[drawn])
    else:
        limited = _select_listed(split, dataset, resolved, np.unique(resolved.label_rows))
    if len(np.unique(dataset.labels[limited.train])) < 2:
        raise LabelsNeeded(
            f"The label budget holds {len(limited.train)} labels of fewer than two classes: too few to train on."
        )
    return limited


def _select_listed(split: LabelSplit, dataset: Dataset, resolved: Labelled, listed: Rows) -> LabelSplit:
    """Train on the listed rows and remove them from the test rows, which may be held out of the training split."""
    usable = dataset.select_labelled(dataset.indices("train", resolved.subset, resolved.seed))
    if len(unusable := np.setdiff1d(listed, usable)):
        raise ConfigUnfit(f"label_rows names {unusable[0]}, which is not the row of a labelled training image.")
    test = np.setdiff1d(split.test, listed)
    if not len(test):
        raise ConfigUnfit("label_rows leaves no labelled image to evaluate on.")
    return replace(split, train=listed, test=test)


def _mask_labels(dataset: Dataset, labelled: Rows) -> Tensor:
    labels = np.full(len(dataset), UNLABELLED, dtype=np.int64)
    labels[labelled] = dataset.labels[labelled]
    return torch.from_numpy(labels)
