"""The bench on which an encoder is judged: its images, their labels, and how far the work has come."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ssl_core.config import KnnEval, LinearEval
from ssl_core.config.requirements import no_such_layer
from ssl_core.data.dataset import Dataset, select_labels
from ssl_core.data.image_store import ImageStore, read_centre_crops
from ssl_core.data.label_split import LabelSplit
from ssl_core.data.sampling import Rows
from ssl_core.errors import ConfigUnfit
from ssl_core.evaluation import accuracy
from ssl_core.evaluation.logistic_regression import Scaling
from ssl_core.events import Event, Metrics, Progress
from ssl_core.inputs import Inputs
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.serialization import saved_model

_BATCH = 256
_CHUNK = 16 * _BATCH  # images prepared at a time
_PIXELS_SIDE = 64  # the `pixels` baseline looks at no more than this

T = TypeVar("T")
Steps = Generator[Event, None, T]


def extract_features(encoder: Encoder, pixels: Tensor, layer: str = "backbone", batch_size: int = _BATCH) -> Tensor:
    """Return float32 N×D on the CPU of prepared images uint8 N×S×S×3."""
    return torch.cat([encoder.encode(part, layer).cpu() for part in pixels.split(batch_size)])


@dataclass(frozen=True)
class FeatureSource:
    """One thing that is judged: the model or a baseline."""

    side: int  # of its images, in pixels
    encode_views: Callable[[Tensor], Tensor]  # float32 N×3×S×S in [0, 1] -> float32 N×D

    def prepared(self, pixels: Tensor) -> Tensor:
        """Return float32 N×D on the CPU of prepared images uint8 N×S×S×3."""
        return torch.cat(
            [self.views(part.permute(0, 3, 1, 2).float().div_(255)).cpu() for part in pixels.split(_BATCH)]
        )

    def views(self, views: Tensor) -> Tensor:
        """Return float32 N×D of views float32 N×3×S×S in [0, 1], which may be overwritten."""
        return torch.cat([self.encode_views(part) for part in views.split(_BATCH)])


@dataclass(frozen=True)
class Features:
    """Of un-augmented images, N×D each; without a val split its part has no rows."""

    train: Tensor
    val: Tensor
    test: Tensor

    def scaled(self, scaling: Scaling) -> "Features":
        return Features(scaling(self.train), scaling(self.val), scaling(self.test))


class Evaluation:
    """What the judging of one encoder shares, by whatever it is judged."""

    def __init__(self, config: KnnEval | LinearEval, inputs: Inputs) -> None:
        """config: resolved. Raises ConfigUnfit, LabelsNeeded, BadModel."""
        if inputs.model is None:
            raise ConfigUnfit("An evaluation needs a model to judge.")
        self._config = config
        self._model = inputs.model
        self._dataset = Dataset.open(inputs.dataset)
        self.split = LabelSplit.of(self._dataset, config.subset, config.seed, config.test_fraction)
        self._side = saved_model.load_card(inputs.model)["preprocessing"]["image_size"]
        self._started = time.monotonic()
        self._images = 0
        self.stopped = inputs.stop
        self.sources = ("model", *dict.fromkeys(config.baselines))
        self.classes = self._dataset.class_names
        parts = (self.split.train, self.split.val, self.split.test)
        labels = (select_labels(self._dataset, rows).to(config.device) for rows in parts)
        self.train_labels, self.val_labels, self.test_labels = labels
        self.done, self._skipped = 0, 0
        self.total = len(self.sources) * sum(-(-len(rows) // _CHUNK) for rows in parts)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells the judging of this model by these images from any other."""
        rows = (self.split.train, self.split.val, self.split.test)
        images = {"images": len(self._dataset), "rows": [len(part) for part in rows], "mean": self._dataset.mean}
        return images | {"model": saved_model.digest(self._model)}

    @property
    def about(self) -> dict[str, Any]:
        return {"layer": self._config.layer, "classes": len(self.classes), "test_images": len(self.test_labels)}

    def protocol(self, trained_on: str = "un-augmented images") -> str:
        """The part of the protocol that all evaluations share."""
        drawn = " and the draws of labels" if self._config.draws_labels else ""
        unlike = "" if trained_on == "un-augmented images" else "un-augmented "
        text = (
            f"features of layer {self._config.layer} of {trained_on} at {self._side} px;"
            f" {len(self.train_labels):,} labelled training images; top-1 on {self.split.test_name}"
            f" ({len(self.test_labels):,} {unlike}images), its 95 % interval by a bootstrap over these images{drawn}"
            f" ({accuracy.RESAMPLES:,} resamples)."
        )
        if "pixels" in self.sources:
            text += f" Raw pixels are normalised by channel, at {min(self._side, _PIXELS_SIDE)} px."
        return text

    def source(self, name: str) -> FeatureSource:
        """Return one of `sources`. Raises ConfigUnfit when the model has not the layer."""
        config = self._config
        if name == "pixels":
            preprocessing = Preprocessing.of_card(saved_model.load_card(self._model))
            return FeatureSource(min(self._side, _PIXELS_SIDE), preprocessing.flatten)
        if name == "random":
            encoder = saved_model.load_untrained(
                self._model, config.device, seed=config.seed, precision=config.precision
            )
        else:
            encoder = saved_model.load(self._model, config.device, precision=config.precision)
        if config.layer not in encoder.layers:
            raise ConfigUnfit(no_such_layer(config.layer, encoder.layers))
        return FeatureSource(self._side, lambda views: encoder.encode_views(views, config.layer))

    def represent(self, source: FeatureSource) -> Steps[Features | None]:
        """Compute the features of one source, on the run's device; None when the run was asked to stop."""
        parts: list[Tensor] = []
        for rows in (self.split.train, self.split.val, self.split.test):
            chunks = []
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                chunks.append(source.prepared(read_centre_crops(self._dataset, chunk, source.side)))
                yield self.step(len(chunk))
                if self.stopped():
                    return None
            parts.append(torch.cat(chunks).to(self._config.device) if chunks else parts[0][:0])
        return Features(*parts)

    def images(self, rows: Rows, source: FeatureSource) -> ImageStore:
        """Return where views of the dataset's rows at the source's side are made from."""
        return ImageStore(self._dataset, rows, source.side, torch.device(self._config.device))

    def step(self, images: int = 0) -> Progress:
        """Count a step, in which so many images passed, and tell."""
        self.done += 1
        self._images += images
        seconds = time.monotonic() - self._started
        taken = self.done - self._skipped
        return Progress(
            epoch=0,
            epochs=1,
            step=self.done,
            total_steps=self.total,
            images_per_second=self._images / max(seconds, 1e-9),
            eta_seconds=seconds / taken * max(0, self.total - self.done),
        )

    def skip(self, steps: int) -> None:
        """Count steps that an earlier attempt took."""
        self.done += steps
        self._skipped += steps

    def metric(self, name: str, source: str, value: float) -> Metrics:
        """A metric at the present step; those of a baseline carry its name."""
        name = name if source == "model" else f"{name}_{source}"
        return Metrics(self.done, 0.0, time.time(), {name: value})
