"""The material of a pretraining run: its rows, where their pixels come from, and what judges the encoder meanwhile."""

from dataclasses import dataclass

import torch

from ssl_core.artifact import Preprocessing
from ssl_core.config import Pretrain
from ssl_core.data import Dataset, Rows
from ssl_core.monitor import Monitor
from ssl_core.source import Images

# Mean and standard deviation of each channel.
_FIXED = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ([0.5] * 3, [0.5] * 3),
    "none": ([0.0] * 3, [1.0] * 3),
}


@dataclass(frozen=True)
class Material:
    """It depends on the data and the settled config, not on the length of the run."""

    dataset: Dataset
    rows: Rows
    images: Images
    preprocessing: Preprocessing
    monitor: Monitor | None

    @classmethod
    def of(cls, dataset: Dataset, settled: Pretrain) -> "Material":
        """Read what the resolved config asks for; images that fit are decoded now, once."""
        assert settled.phases != "auto"
        assert settled.image_size != "auto"
        rows = dataset.indices("train", settled.subset, settled.seed)
        largest = max(phase.image_size for phase in settled.phases)
        return cls(
            dataset,
            rows,
            Images(dataset, rows, largest, torch.device(settled.device)),
            Preprocessing.of(settled.image_size, *_normalisation(settled, dataset)),
            Monitor.of(dataset, settled),
        )


def _normalisation(settled: Pretrain, dataset: Dataset) -> tuple[list[float], list[float]]:
    return _FIXED.get(settled.normalisation, (dataset.mean, dataset.std))
