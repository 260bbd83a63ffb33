"""The material of a training run: its rows, where their pixels come from, and what judges the encoder meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ssl_core.config import Finetune, Labelled, Pretrain, TrainingRun
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_store import Images
from ssl_core.data.label_budget import Teaching
from ssl_core.data.sampling import Rows
from ssl_core.evaluation.online_accuracy import Examiner
from ssl_core.evaluation.online_probe import Monitor
from ssl_core.models.encoder import Preprocessing
from ssl_core.serialization import saved_model

# Mean and standard deviation of each channel.
_FIXED = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ([0.5] * 3, [0.5] * 3),
    "none": ([0.0] * 3, [1.0] * 3),
}


@dataclass(frozen=True)
class Material:
    """It depends on the data and the resolved config, not on the length of the run."""

    dataset: Dataset
    rows: Rows
    images: Images
    preprocessing: Preprocessing
    monitor: Monitor | Examiner | None
    teaching: Teaching | None = None  # what a run with labels is taught
    model: Path | None = None  # the artifact that the run has for a start, or for a teacher

    @classmethod
    def of(cls, dataset: Dataset, resolved: TrainingRun, model: Path | None = None) -> "Material":
        """Read what the resolved config asks for; images that fit are decoded now, once. Raises RunFailure."""
        assert resolved.phases != "auto"
        card = saved_model.load_card(model) if model is not None else None
        teaching = Teaching.of(dataset, resolved, card) if isinstance(resolved, Labelled) else None
        rows = teaching.rows if teaching else dataset.indices("train", resolved.subset, resolved.seed)
        largest = max(phase.image_size for phase in resolved.phases)
        return cls(
            dataset,
            rows,
            Images(dataset, rows, largest, torch.device(resolved.device)),
            _preprocessing(dataset, resolved, card),
            _judge(dataset, resolved, teaching),
            teaching,
            model,
        )


def _preprocessing(dataset: Dataset, resolved: TrainingRun, card: Mapping[str, Any] | None) -> Preprocessing:
    """By the dataset's channels; a model that is fine-tuned keeps those that it knows."""
    assert resolved.image_size != "auto"
    if isinstance(resolved, Finetune) and card is not None:
        return replace(Preprocessing.of_card(card), image_size=resolved.image_size)
    fixed = _FIXED.get(resolved.normalisation) if isinstance(resolved, Pretrain) else None
    return Preprocessing.of(resolved.image_size, *(fixed or (dataset.mean, dataset.std)))


def _judge(dataset: Dataset, resolved: TrainingRun, teaching: Teaching | None) -> Monitor | Examiner | None:
    if isinstance(resolved, Labelled):
        assert teaching is not None
        return Examiner.of(dataset, resolved, teaching)
    assert isinstance(resolved, Pretrain)
    return Monitor.of(dataset, resolved)
