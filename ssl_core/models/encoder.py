"""Encoder: a backbone with its heads and its preprocessing, from uint8 images to the features of any layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_core.data import centre_crop
from ssl_core.data.formats.value_range import FULL, ValueRange
from ssl_core.device import autocast, memory_format, send
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP

# Mean and standard deviation of ImageNet's channels, of values in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an encoder: a centre crop at `image_size`, and (x - mean) / std per channel, x in [0, 1]."""

    image_size: int
    mean: tuple[float, ...]  # of each of C channels
    std: tuple[float, ...]
    values: ValueRange | None = None  # that are 0 and 1 in deep images; None: by the bit depth of each image

    @classmethod
    def of(cls, image_size: int, mean: list[float], std: list[float]) -> "Preprocessing":
        """Return the preprocessing by channel statistics; a channel with std below 1e-4 is not scaled."""
        return cls(image_size, tuple(mean), tuple(value if value > 1e-4 else 1.0 for value in std))

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> "Preprocessing":
        """Return the preprocessing of a saved model's card; one from before ranges has that of 16 bits."""
        shape = card["preprocessing"]
        values = ValueRange.of(shape["range"]) if "range" in shape else FULL
        return cls(shape["image_size"], tuple(shape["mean"]), tuple(shape["std"]), values)

    def flatten(self, views: Tensor) -> Tensor:
        """Return raw pixels as features: float32 N×C·S² of float32 N×C×S×S in [0, 1], normalised in place."""
        return self.normalise_(views).flatten(1)

    def normalise_(self, images: Tensor) -> Tensor:
        """Normalise N×C×H×W on [0, 1] in place. Use `statistics` for many batches: this copies them to the device."""
        return self.statistics(images.device).normalise_(images)

    def statistics(self, device: torch.device) -> "ChannelStatistics":
        """Return the mean and standard deviation of the channels on the device."""
        values = (torch.tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        return ChannelStatistics(*(send(value, device) for value in values))


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of each channel, C×1×1 each."""

    mean: Tensor
    std: Tensor

    def normalise_(self, images: Tensor) -> Tensor:
        """Normalise N×C×H×W on [0, 1] in place."""
        return images.sub_(self.mean).div_(self.std)

    def denormalise(self, images: Tensor) -> Tensor:
        """Invert `normalise_`: N×C×H×W on [0, 1]."""
        return images * self.std + self.mean


class Encoder(nn.Module):
    """An encoder in eval mode: uint8 images at `image_size` -> float32 features of one of its layers.

    Without a projector it has the backbone's layers only. A classifier takes the projector's output where there is one,
    and the backbone's features otherwise; its output is the layer `logits`.
    """

    def __init__(
        self,
        backbone: Backbone,
        projector: MLP | None,
        preprocessing: Preprocessing,
        *,
        precision: str = "fp32",
        classifier: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.classifier = classifier
        self.preprocessing = preprocessing
        self.precision = precision
        self.layers = compute_layer_widths(backbone, projector, classifier)  # name -> width
        self.dim = backbone.dim
        self.image_size = preprocessing.image_size
        self.channels = len(preprocessing.mean)
        self.eval()

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 S×S×C of an image uint8 H×W×C, S being `image_size` and C `channels`."""
        return np.array(centre_crop.centre_crop(image, self.image_size))  # writable, as torch wants it

    def encode(self, pixels: Tensor | NDArray[np.uint8], layer: str = "backbone") -> Tensor:
        """Return float32 N×D, on the encoder's device, of prepared images uint8 N×S×S×C.

        Raises KeyError for a layer that is not in `layers`.
        """
        images = send(torch.as_tensor(pixels), self.device).permute(0, 3, 1, 2).float().div_(255)  # N×C×S×S
        return self.encode_views(images, layer)

    @torch.inference_mode()
    def encode_views(self, views: Tensor, layer: str = "backbone") -> Tensor:
        """Return float32 N×D of float32 N×C×S×S in [0, 1], which are normalised in place.

        Raises KeyError for a layer that is not in `layers`.
        """
        if layer not in self.layers:
            raise KeyError(layer)
        device = self.device
        layout = memory_format(device, self.precision)
        images = self.preprocessing.normalise_(views.to(device)).contiguous(memory_format=layout)
        with autocast(device, self.precision):
            features = self(images, layer)
        return features.float()

    def forward(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return features N×D of normalised images N×C×S×S, with gradients; `encode` starts from uint8."""
        if layer in self.backbone.block_dims:
            return self.backbone.blocks(images)[layer]
        h = self.backbone(images)
        if layer == "logits":
            return self._logits(h)
        if self.projector is None or layer == "backbone":
            return h
        return dict(zip(_name_head_layers(self.projector), self.projector.layers(h), strict=True))[layer]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def _logits(self, h: Tensor) -> Tensor:
        assert self.classifier is not None
        return self.classifier(h if self.projector is None else self.projector(h))


def compute_layer_widths(
    backbone: Backbone, projector: MLP | None, classifier: nn.Linear | None = None
) -> dict[str, int]:
    """Return the widths of an encoder's layers by name: features, head layers from first to last, logits, blocks."""
    head = dict(zip(_name_head_layers(projector), projector.widths, strict=True)) if projector is not None else {}
    logits = {"logits": classifier.out_features} if classifier is not None else {}
    return {"backbone": backbone.dim, **head, **logits, **backbone.block_dims}


def _name_head_layers(projector: MLP) -> list[str]:
    return [f"head{number}" for number in range(1, len(projector.widths))] + ["projection"]
