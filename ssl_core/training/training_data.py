"""The data of a training run: its rows, their pixels and labels, the preprocessing, and the online evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl_core.config import Labelled, TrainingRun, requirements
from ssl_core.config.fields import known
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_store import ImageStore
from ssl_core.data.label_budget import LabelBudget
from ssl_core.data.sampling import Rows
from ssl_core.device import local_device
from ssl_core.errors import ConfigUnfit
from ssl_core.evaluation.online_accuracy import HeldOutAccuracy
from ssl_core.evaluation.online_probe import OnlineProbe
from ssl_core.models.encoder import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from ssl_core.serialization import saved_model

# Mean and standard deviation of each channel.
_FIXED = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),  # of RGB
    "half": ([0.5], [0.5]),  # of any channel
    "none": ([0.0], [1.0]),
}


@dataclass(frozen=True)
class TrainingData:
    """Depends on the dataset and the resolved config, but not on the length of the run."""

    dataset: Dataset
    rows: Rows
    images: ImageStore
    preprocessing: Preprocessing
    evaluator: OnlineProbe | HeldOutAccuracy | None  # evaluates the encoder while it trains
    budget: LabelBudget | None = None  # the labels of a run that learns by them
    model: Path | None = None  # the saved model that training starts from, or its teacher

    @classmethod
    def of(cls, dataset: Dataset, resolved: TrainingRun, model: Path | None = None) -> "TrainingData":
        """Read what the resolved config asks for; images that fit are decoded now, once. Raises RunFailure."""
        card = saved_model.load_card(model) if model is not None else None
        budget = LabelBudget.of(dataset, resolved, card) if isinstance(resolved, Labelled) else None
        rows = budget.rows if budget else dataset.indices("train", resolved.subset, resolved.seed)
        if len(rows) < resolved.fewest_images:  # of them, some may be held out to evaluate on
            raise ConfigUnfit(requirements.too_few_images(resolved.fewest_images, len(rows)))
        largest = max(phase.image_size for phase in known(resolved.phases))
        return cls(
            dataset,
            rows,
            ImageStore(dataset, rows, largest, local_device(resolved.device)),
            _preprocessing(dataset, resolved, card),
            _evaluator(dataset, resolved, budget),
            budget,
            model,
        )


def _preprocessing(dataset: Dataset, resolved: TrainingRun, card: Mapping[str, Any] | None) -> Preprocessing:
    """By the dataset's channels, fixed ones, or those of the model that is trained on.

    The range of values is the dataset's, which its pixels were scaled by; of 8-bit images that of the model, if any.
    """
    image_size = known(resolved.image_size)
    values = dataset.value_range
    if resolved.keeps_preprocessing and card is not None:
        kept = Preprocessing.of_card(card)
        return replace(kept, image_size=image_size, values=values or kept.values)
    fixed = _FIXED.get(resolved.channel_statistics)
    if fixed is None:
        return replace(Preprocessing.of(image_size, dataset.mean, dataset.std), values=values)
    mean, std = (values if len(values) > 1 else values * dataset.channels for values in fixed)
    return replace(Preprocessing.of(image_size, mean, std), values=values)


def _evaluator(
    dataset: Dataset, resolved: TrainingRun, budget: LabelBudget | None
) -> OnlineProbe | HeldOutAccuracy | None:
    if resolved.online_probe is not None:
        return OnlineProbe.of(dataset, resolved, resolved.online_probe)
    return HeldOutAccuracy.of(dataset, resolved, budget) if budget is not None else None
