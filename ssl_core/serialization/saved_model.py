"""The artifact: a trained encoder on disk, and the encoder that it becomes again.

A folder with `weights.safetensors` (the backbone, under torchvision's names), `heads.safetensors` (the projector, a
classifier and other heads, whose absence people regret later), `model.json`, the card: what the encoder is, how it
wants its images, and where it comes from, and `README.md`, the same for people. The same tensors give the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from ssl_core.config import Backbone as BackboneConfig
from ssl_core.config import is_torchvisions
from ssl_core.data import centre_crop
from ssl_core.device import memory_format, place, precise
from ssl_core.errors import BadModel
from ssl_core.files import Written, settle
from ssl_core.models import backbones
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP
from ssl_core.serialization import model_card

FORMAT = 2
NETWORK = {"name", "width", "stem", "selective_kernel", "layout"}  # of a backbone's fields: what its weights fit
WEIGHTS, HEADS, CARD, README = "weights.safetensors", "heads.safetensors", "model.json", "README.md"


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
        return centre_crop.prepare(image, self.image_size)

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
        with precise(device, self.precision):
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


def save(
    directory: Path,
    encoder: Encoder,
    backbone: BackboneConfig,
    heads: Mapping[str, nn.Module],
    about: Mapping[str, Any],
) -> tuple[Written, dict[str, Any]]:
    """Write the artifact into `directory`; return its weights file and its card, which `about` adds to.

    backbone: the resolved config of the encoder's; heads: all that are to be kept, the projector as `projector` and the
    classifier as `classifier`, whose classes `about` names.
    """
    directory.mkdir(parents=True, exist_ok=True)
    projector, preprocessing = encoder.projector, encoder.preprocessing
    card = {
        "format": FORMAT,
        "backbone": backbone.model_dump(mode="json", include=NETWORK),
        "projector": projector.description if projector is not None else None,
        "dim": encoder.dim,
        "projection_dim": encoder.layers.get("projection"),
        "layers": encoder.layers,
        "preprocessing": {
            "image_size": preprocessing.image_size,
            "resize": "shorter side, then centre crop",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        },
        **about,
    }
    kept = {f"{name}.{key}": value for name, head in heads.items() for key, value in head.state_dict().items()}
    settle(directory / HEADS, _bytes(kept))
    weights = settle(directory / WEIGHTS, _bytes(encoder.backbone.body.state_dict()))
    settle(directory / README, model_card.markdown(card).encode())
    # The card comes last: with it the folder is a model.
    settle(directory / CARD, json.dumps(card, indent=1, allow_nan=False).encode())
    return weights, card


def load_card(directory: Path) -> dict[str, Any]:
    """Return the artifact's card. Raises BadModel."""
    try:
        card = json.loads((directory / CARD).read_bytes())
    except (OSError, ValueError) as error:
        raise BadModel(f"The model's {CARD} is missing or damaged.") from error
    if not isinstance(card, dict) or card.get("format") not in (1, FORMAT):
        raise BadModel("The model was written by another version.")
    return card


def digest(directory: Path) -> str:
    """Return the SHA-256 of the artifact's files, in hexadecimal: two models that differ have another one each."""
    whole = hashlib.sha256()
    for name in (CARD, WEIGHTS, HEADS):
        if (path := directory / name).is_file():
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def head_depth(card: Mapping[str, Any]) -> int:
    """Return the number of layers of an artifact's head."""
    described = _projector(card, dim=0)
    return len(described["widths"]) - 1 if described is not None else 0


def load(directory: Path, device: str | torch.device = "cpu", *, precision: str = "fp32") -> Encoder:
    """Return the encoder that `save` wrote. Raises BadModel when the folder holds none that is whole."""
    encoder = load_untrained(directory, device, seed=0, precision=precision)
    load_backbone(encoder.backbone, directory)
    for name, head in (("projector", encoder.projector), ("classifier", encoder.classifier)):
        if head is not None:
            load_head(head, directory, name)
    return encoder


def load_untrained(
    directory: Path, device: str | torch.device = "cpu", *, seed: int, precision: str = "fp32"
) -> Encoder:
    """Return an encoder of the artifact's shape and preprocessing with random weights, for comparison."""
    card = load_card(directory)
    torch.manual_seed(seed)
    try:
        backbone = backbones.build(_backbone(card))
        described = _projector(card, backbone.dim)
        projector = MLP(**described) if described is not None else None
        width = projector.widths[-1] if projector is not None else backbone.dim
        classifier = nn.Linear(width, len(card["classifier"]["classes"])) if card.get("classifier") else None
        encoder = Encoder(backbone, projector, Preprocessing.of_card(card), precision=precision, classifier=classifier)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadModel(f"The model's {CARD} does not describe an encoder of this version.") from error
    place(encoder, torch.device(device), precision)
    return encoder


def load_backbone(backbone: Backbone, directory: Path) -> None:
    """Give a backbone of the same shape the artifact's weights. Raises BadModel when they do not fit."""
    _load(backbone.body, directory / WEIGHTS)


def load_head(head: nn.Module, directory: Path, name: str) -> None:
    """Give a head of the same shape the weights that were kept under that name. Raises BadModel."""
    kept = _read(directory / HEADS)
    mine = {key.removeprefix(f"{name}."): value for key, value in kept.items() if key.startswith(f"{name}.")}
    _fill(head, mine, HEADS)


def _backbone(card: Mapping[str, Any]) -> BackboneConfig:
    """The network's shape; what else may stand there of a torchvision model, taken as it is, says nothing."""
    shape = card["backbone"]
    if is_torchvisions(shape["name"]):
        return BackboneConfig(name=shape["name"])
    return BackboneConfig.model_validate_json(json.dumps({"zero_init_residual": False} | shape))


def _projector(card: Mapping[str, Any], dim: int) -> dict[str, Any] | None:
    """The description of the projector; cards of format 1 have it in the words of their method's config."""
    if card["format"] != 1:
        return card["projector"]
    method = card["config"]["method"]
    simclr = method["name"] == "simclr"
    norm = method["projector_batch_norm"] if simclr else True
    return {
        "widths": (dim, *method["projector"]),
        "hidden_norm": norm,
        "last_norm": "fixed" if not simclr else "scale" if norm else "none",
        "relu_first": method.get("projector_relu_first", False),
    }


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(data)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise BadModel(f"The model's {path.name} is missing or damaged.") from error


def _load(module: nn.Module, path: Path) -> None:
    _fill(module, _read(path), path.name)


def _fill(module: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    own = module.state_dict()  # it knows its version, without which torchvision's MNASNets take nothing
    try:
        if own.keys() != weights.keys():
            raise RuntimeError("other names")
        own.update(weights)
        module.load_state_dict(own)
    except RuntimeError as error:
        raise BadModel(f"The model's {name} belongs to a network of another shape.") from error
