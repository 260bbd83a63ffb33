"""Teaching: which images a run with labels trains on, which of their labels it is told, and which images judge it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.config import Distill, Labelled
from ssl_core.config.requirements import no_classifier
from ssl_core.data.dataset import Dataset
from ssl_core.data.label_split import LabelSplit, draw_labelled
from ssl_core.data.sampling import Rows
from ssl_core.errors import ConfigUnfit, LabelsNeeded

UNLABELLED = -1  # the label of an image whose class the run is not told


@dataclass(frozen=True)
class LabelBudget:
    """What judges is never trained on, with its label or without."""

    classes: list[str]
    rows: Rows  # to train on, ascending
    labels: Tensor  # int64, of every row of the dataset; HIDDEN where it is not told
    split: LabelSplit | None  # None: nothing can judge

    @classmethod
    def of(cls, dataset: Dataset, resolved: Labelled, card: Mapping[str, Any] | None) -> "LabelBudget":
        """Choose as a resolved config says; card: the model's, where the job has one.

        Raises LabelsNeeded, and ConfigUnfit when the config names images that cannot teach.
        """
        if isinstance(resolved, Distill):
            return _budget_for_distillation(dataset, resolved, (card or {}).get("classifier"))
        split = _limit_labels(LabelSplit.of(dataset, resolved.subset, resolved.seed), dataset, resolved)
        return cls(dataset.class_names, split.train, _mask_labels(dataset, split.train), split)


def _budget_for_distillation(dataset: Dataset, resolved: Distill, classifier: Mapping[str, Any] | None) -> LabelBudget:
    """All images teach, but those that judge; labels are told where they weigh something."""
    if not classifier:
        raise ConfigUnfit(no_classifier())
    classes, used = list(classifier["classes"]), resolved.label_weight > 0
    split = (
        _limit_labels(LabelSplit.of(dataset, resolved.subset, resolved.seed), dataset, resolved)
        if used
        else _split_for_distillation(dataset, resolved)
    )
    told = split.train if split and used else np.empty(0, dtype=np.int64)
    if dataset.class_names != classes:
        if used:
            raise ConfigUnfit("The model's classes are not those of the dataset, so its labels cannot be used.")
        split = None
    rows = dataset.indices("train", resolved.subset, resolved.seed)
    return LabelBudget(classes, np.setdiff1d(rows, split.test) if split else rows, _mask_labels(dataset, told), split)


def _split_for_distillation(dataset: Dataset, resolved: Distill) -> LabelSplit | None:
    """As for every other run; but the images that teach need no labels here."""
    try:
        return LabelSplit.of(dataset, resolved.subset, resolved.seed)
    except LabelsNeeded:
        for name in ("test", "val"):
            rows = dataset.select_labelled(dataset.indices(name))
            if len(rows):
                return LabelSplit(rows[:0], rows[:0], rows, f"the {name} split")
    return None


def _limit_labels(split: LabelSplit, dataset: Dataset, resolved: Labelled) -> LabelSplit:
    """The trial with the labels that the config reveals, and no others."""
    if resolved.label_rows is None:
        drawn = draw_labelled(dataset.labels[split.train], resolved.label_fraction, resolved.seed, 0)
        told = replace(split, train=split.train[drawn])
    else:
        told = _select_listed(split, dataset, resolved, np.unique(resolved.label_rows))
    if len(np.unique(dataset.labels[told.train])) < 2:
        raise LabelsNeeded(
            f"Of the labels, {len(told.train)} would be used, not of two classes: too few to learn from."
        )
    return told


def _select_listed(split: LabelSplit, dataset: Dataset, resolved: Labelled, listed: Rows) -> LabelSplit:
    """Images that are listed do not judge, even where a part of the training images is held out for that."""
    usable = dataset.select_labelled(dataset.indices("train", resolved.subset, resolved.seed))
    if len(unusable := np.setdiff1d(listed, usable)):
        raise ConfigUnfit(f"label_rows names {unusable[0]}, which is not the number of a labelled training image.")
    judges = np.setdiff1d(split.test, listed)
    if not len(judges):
        raise ConfigUnfit("label_rows leaves no labelled image to judge with.")
    return replace(split, train=listed, test=judges)


def _mask_labels(dataset: Dataset, told: Rows) -> Tensor:
    labels = np.full(len(dataset), UNLABELLED, dtype=np.int64)
    labels[told] = dataset.labels[told]
    return torch.from_numpy(labels)
