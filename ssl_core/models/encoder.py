"""The encoder: a backbone with its heads and its preprocessing, from uint8 images to features of any of its layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_core.data import centre_crop
from ssl_core.device import autocast, memory_format
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP

# Mean and standard deviation of ImageNet's channels, of values in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class Preprocessing:
    """How an encoder wants its images: the largest central square at `image_size`, each channel less mean over std."""

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, image_size: int, mean: list[float], std: list[float]) -> "Preprocessing":
        """A channel that never varies is left unscaled."""
        return cls(image_size, tuple(mean), tuple(value if value > 1e-4 else 1.0 for value in std))

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> "Preprocessing":
        """Return what an artifact's card holds."""
        shape = card["preprocessing"]
        return cls(shape["image_size"], tuple(shape["mean"]), tuple(shape["std"]))

    def pixels(self, views: Tensor) -> Tensor:
        """Return float32 N×3·S² of float32 N×3×S×S in [0, 1], normalised in place: what an encoder has to beat."""
        return self.normalise_(views).flatten(1)

    def restore(self, images: Tensor) -> Tensor:
        """Return what `normalise_` was given."""
        mean, std = (torch.tensor(value, device=images.device).view(3, 1, 1) for value in (self.mean, self.std))
        return images * std + mean

    def normalise_(self, images: Tensor) -> Tensor:
        """Normalise N×3×H×W on [0, 1] in place."""
        mean, std = (torch.tensor(value, device=images.device).view(3, 1, 1) for value in (self.mean, self.std))
        return images.sub_(mean).div_(std)


class Encoder(nn.Module):
    """An encoder in eval mode: uint8 images at its own size -> float32 features of one of its layers.

    Without a projector it has the backbone's layers alone. A classifier stands on the projector where there is one,
    and on the features otherwise; what it gives is the layer `logits`.
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
        self.layers = layers(backbone, projector, classifier)  # name -> width
        self.dim = backbone.dim
        self.image_size = preprocessing.image_size
        self.eval()

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 S×S×3 of an image uint8 H×W×3, S being `image_size`."""
        return np.array(centre_crop.centre_crop(image, self.image_size))  # writable, as torch wants it

    def encode(self, pixels: Tensor | NDArray[np.uint8], layer: str = "backbone") -> Tensor:
        """Return float32 N×D, on the encoder's device, of prepared images uint8 N×S×S×3.

        Raises KeyError for a layer that is not in `layers`.
        """
        images = torch.as_tensor(pixels).to(self._device).permute(0, 3, 1, 2).float().div_(255)  # N×3×S×S
        return self.encode_views(images, layer)

    @torch.inference_mode()
    def encode_views(self, views: Tensor, layer: str = "backbone") -> Tensor:
        """Return float32 N×D of float32 N×3×S×S in [0, 1], which are normalised in place.

        Raises KeyError for a layer that is not in `layers`.
        """
        if layer not in self.layers:
            raise KeyError(layer)
        device = self._device
        layout = memory_format(device, self.precision)
        images = self.preprocessing.normalise_(views.to(device)).contiguous(memory_format=layout)
        with autocast(device, self.precision):
            features = self(images, layer)
        return features.float()

    def forward(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return features N×D of normalised images N×3×S×S, with gradients; `encode` starts from uint8."""
        return self._features(images, layer)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _features(self, images: Tensor, layer: str) -> Tensor:
        if layer in self.backbone.block_dims:
            return self.backbone.blocks(images)[layer]
        h = self.backbone(images)
        if layer == "logits":
            return self._logits(h)
        if self.projector is None or layer == "backbone":
            return h
        return dict(zip(_head_names(self.projector), self.projector.layers(h), strict=True))[layer]

    def _logits(self, h: Tensor) -> Tensor:
        assert self.classifier is not None
        return self.classifier(h if self.projector is None else self.projector(h))


def layers(backbone: Backbone, projector: MLP | None, classifier: nn.Linear | None = None) -> dict[str, int]:
    """Return the widths of all layers that an encoder gives: features, those of the head from below, logits, blocks."""
    head = dict(zip(_head_names(projector), projector.widths, strict=True)) if projector is not None else {}
    logits = {"logits": classifier.out_features} if classifier is not None else {}
    return {"backbone": backbone.dim, **head, **logits, **backbone.block_dims}


def _head_names(projector: MLP) -> list[str]:
    return [f"head{number}" for number in range(1, len(projector.widths))] + ["projection"]
