"""Features of a frozen encoder, and what its evaluations share: images, labels, baselines and progress."""

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
from ssl_core.device import send
from ssl_core.errors import ConfigUnfit
from ssl_core.evaluation import accuracy
from ssl_core.evaluation.logistic_regression import Scaling
from ssl_core.events import Event, Metrics, Progress
from ssl_core.inputs import Inputs
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.serialization import saved_model

BATCH = 256  # images that an encoder processes at a time
_CHUNK = 16 * BATCH  # images decoded at a time
_MAX_PIXELS_SIZE = 64  # image size of the `pixels` baseline, at most

T = TypeVar("T")
EventStream = Generator[Event, None, T]


def extract_features(encoder: Encoder, pixels: Tensor, layer: str = "backbone", batch_size: int = BATCH) -> Tensor:
    """Return float32 N×D on the encoder's device of prepared images uint8 N×S×S×C."""
    return torch.cat([encoder.encode(part, layer) for part in pixels.split(batch_size)])


@dataclass(frozen=True)
class FeatureSource:
    """A feature extractor: the model or a baseline."""

    device: torch.device
    image_size: int  # pixels
    encode_views: Callable[[Tensor], Tensor]  # float32 N×C×S×S in [0, 1] -> float32 N×D

    def extract(self, pixels: Tensor) -> Tensor:
        """Return float32 N×D on the device of prepared images uint8 N×S×S×C."""
        parts = (send(part, self.device) for part in pixels.split(BATCH))
        return torch.cat([self.encode_views(part.permute(0, 3, 1, 2).float().div_(255)) for part in parts])

    def extract_views(self, views: Tensor) -> Tensor:
        """Return float32 N×D of views float32 N×C×S×S in [0, 1], which may be overwritten."""
        return torch.cat([self.encode_views(part) for part in views.split(BATCH)])


@dataclass(frozen=True)
class Features:
    """Features of un-augmented images, N×D each; `val` has no rows without a val split."""

    train: Tensor
    val: Tensor
    test: Tensor

    def scale_(self, scaling: Scaling) -> "Features":
        """Scale the features in place, and return them."""
        for part in (self.train, self.val, self.test):
            scaling.scale_(part)
        return self


class Evaluation:
    """What the kNN and the linear evaluation of an encoder share."""

    def __init__(self, config: KnnEval | LinearEval, inputs: Inputs) -> None:
        """config: resolved. Raises ConfigUnfit, LabelsNeeded, BadModel."""
        if inputs.model is None:
            raise ConfigUnfit("An evaluation needs a model.")
        self._config = config
        self._model = inputs.model
        self._dataset = Dataset.open(inputs.dataset)
        self.split = LabelSplit.of(self._dataset, config.subset, config.seed, config.test_fraction)
        self._device = torch.device(config.device)
        self._image_size = saved_model.load_card(inputs.model)["preprocessing"]["image_size"]
        self._started = time.monotonic()
        self._image_count = 0
        self.is_stopped = inputs.stop
        self.source_names = ("model", *dict.fromkeys(config.baselines))
        self.classes = self._dataset.class_names
        self.channels = self._dataset.channels
        parts = (self.split.train, self.split.val, self.split.test)
        labels = (select_labels(self._dataset, rows).to(config.device) for rows in parts)
        self.train_labels, self.val_labels, self.test_labels = labels
        self.step, self._skipped_steps = 0, 0
        self.total_steps = len(self.source_names) * sum(-(-len(rows) // _CHUNK) for rows in parts)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What identifies the evaluation of this model on these images, in a checkpoint."""
        rows = (self.split.train, self.split.val, self.split.test)
        images = {"images": len(self._dataset), "rows": [len(part) for part in rows], "mean": self._dataset.mean}
        return images | {"model": saved_model.compute_digest(self._model)}

    @property
    def summary(self) -> dict[str, Any]:
        """The fields of the result's summary that all evaluations share."""
        unseen = accuracy.warn_of_unseen_classes(self.train_labels, self.test_labels, self.classes)
        test_images = len(self.test_labels)
        return {"layer": self._config.layer, "classes": len(self.classes), "test_images": test_images, **unseen}

    def describe_protocol(self, trained_on: str = "un-augmented images") -> str:
        """Return the part of the protocol that all evaluations share."""
        draws = " and the draws of labels" if self._config.draws_labels else ""
        unlike = "" if trained_on == "un-augmented images" else "un-augmented "
        text = (
            f"features of layer {self._config.layer} of {trained_on} at {self._image_size} px;"
            f" {len(self.train_labels):,} labelled training images; top-1 on {self.split.test_name}"
            f" ({len(self.test_labels):,} {unlike}images), its 95 % interval by a bootstrap over these images{draws}"
            f" ({accuracy.RESAMPLES:,} resamples)."
        )
        if "pixels" in self.source_names:
            text += f" Raw pixels are normalised by channel, at {min(self._image_size, _MAX_PIXELS_SIZE)} px."
        return text

    def load_source(self, name: str) -> FeatureSource:
        """Return one of `source_names`. Raises ConfigUnfit when the model does not have the layer."""
        config = self._config
        if name == "pixels":
            preprocessing = Preprocessing.of_card(saved_model.load_card(self._model))
            return FeatureSource(self._device, min(self._image_size, _MAX_PIXELS_SIZE), preprocessing.flatten)
        if name == "random":
            encoder = saved_model.load_untrained(
                self._model, config.device, seed=config.seed, precision=config.precision
            )
        else:
            encoder = saved_model.load(self._model, config.device, precision=config.precision)
        if config.layer not in encoder.layers:
            raise ConfigUnfit(no_such_layer(config.layer, encoder.layers))
        return FeatureSource(self._device, self._image_size, lambda views: encoder.encode_views(views, config.layer))

    def extract(self, source: FeatureSource) -> EventStream[Features | None]:
        """Return the features of one source, on the run's device; None when the run is stopped."""
        parts = (self.split.train, self.split.val, self.split.test)
        features: Tensor | None = None  # of all parts, so that none of their chunks is copied again
        done = 0
        for rows in parts:
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                found = source.extract(read_centre_crops(self._dataset, chunk, source.image_size))
                if features is None:
                    features = found.new_empty(sum(map(len, parts)), found.shape[1])
                features[done : done + len(chunk)] = found
                done += len(chunk)
                yield self.report_step(len(chunk))
                if self.is_stopped():
                    return None
        assert features is not None  # a label split has training images
        return Features(*features.split([len(rows) for rows in parts]))

    def open_images(self, rows: Rows, source: FeatureSource) -> ImageStore:
        """Return a store of the dataset's rows, from which views of the source's image size are made."""
        return ImageStore(self._dataset, rows, source.image_size, self._device)

    def report_step(self, images: int = 0) -> Progress:
        """Count a step over that many images, and return the progress."""
        self.step += 1
        self._image_count += images
        seconds = time.monotonic() - self._started
        own_steps = self.step - self._skipped_steps
        return Progress(
            epoch=0,
            epochs=1,
            step=self.step,
            total_steps=self.total_steps,
            images_per_second=self._image_count / max(seconds, 1e-9),
            eta_seconds=seconds / own_steps * max(0, self.total_steps - self.step),
        )

    def skip_steps(self, steps: int) -> None:
        """Count steps that the checkpoint already has."""
        self.step += steps
        self._skipped_steps += steps

    def report_metric(self, name: str, source: str, value: float) -> Metrics:
        """Return a metric at the current step; those of a baseline have its name as a suffix."""
        name = name if source == "model" else f"{name}_{source}"
        return Metrics(self.step, 0.0, time.time(), {name: value})
