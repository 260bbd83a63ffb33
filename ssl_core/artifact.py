"""The artifact: a trained encoder on disk, and the encoder that it becomes again.

A folder with `weights.safetensors` (the backbone, under torchvision's names), `heads.safetensors` (the projector and
other heads, whose absence people regret later) and `model.json`, the card: what the encoder is, how it wants its
images, and where it comes from. The same tensors give the same bytes.
"""

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

from ssl_core import backbones, config, prepare
from ssl_core.backbones import Backbone
from ssl_core.config import Pretrain
from ssl_core.failures import BadModel, ConfigUnfit
from ssl_core.files import Written, settle
from ssl_core.machine import memory_format, place, precise
from ssl_core.methods import METHODS, Method

FORMAT = 1
NETWORK = {"name", "width", "stem", "selective_kernel", "layout"}  # of a backbone's fields: what its weights fit
WEIGHTS, HEADS, CARD = "weights.safetensors", "heads.safetensors", "model.json"


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

    def pixels(self, images: Tensor) -> Tensor:
        """Return float32 N×3·S² of uint8 N×S×S×3, normalised and flat: what an encoder has to be better than."""
        return self.normalise_(images.permute(0, 3, 1, 2).float().div_(255)).flatten(1)

    def normalise_(self, images: Tensor) -> Tensor:
        """Normalise N×3×H×W on [0, 1] in place."""
        mean, std = (torch.tensor(value, device=images.device).view(3, 1, 1) for value in (self.mean, self.std))
        return images.sub_(mean).div_(std)


class Encoder(nn.Module):
    """An encoder in eval mode: uint8 images at its own size -> float32 features of one of its layers."""

    def __init__(self, method: Method, preprocessing: Preprocessing, *, precision: str = "fp32") -> None:
        super().__init__()
        self.method = method
        self.preprocessing = preprocessing
        self.precision = precision
        self.layers = layers(method)  # name -> width
        self.dim = method.backbone.dim
        self.image_size = preprocessing.image_size
        self.eval()

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 S×S×3 of an image uint8 H×W×3, S being `image_size`."""
        return prepare.prepare(image, self.image_size)

    @torch.inference_mode()
    def encode(self, pixels: Tensor | NDArray[np.uint8], layer: str = "backbone") -> Tensor:
        """Return float32 N×D, on the encoder's device, of prepared images uint8 N×S×S×3.

        Raises KeyError for a layer that is not in `layers`.
        """
        if layer not in self.layers:
            raise KeyError(layer)
        device = next(self.parameters()).device
        images = torch.as_tensor(pixels).to(device).permute(0, 3, 1, 2).float().div_(255)  # N×3×S×S
        layout = memory_format(device, self.precision)
        images = self.preprocessing.normalise_(images).contiguous(memory_format=layout)
        with precise(device, self.precision):
            if layer == "backbone":
                features = self.method.backbone(images)
            elif layer == "projection":
                features = self.method.projector(self.method.backbone(images))
            else:
                features = self.method.backbone.blocks(images)[layer]
        return features.float()


def layers(method: Method) -> dict[str, int]:
    """Return the widths of all representations that an encoder of this method gives."""
    projection = [module for module in method.projector.modules() if isinstance(module, nn.Linear)][-1].out_features
    return {"backbone": method.backbone.dim, "projection": projection, **method.backbone.block_dims}


def save(
    directory: Path, method: Method, preprocessing: Preprocessing, settled: Pretrain, about: Mapping[str, Any]
) -> tuple[Written, dict[str, Any]]:
    """Write the artifact into `directory`; return its weights file and its card, which `about` adds to."""
    directory.mkdir(parents=True, exist_ok=True)
    widths = layers(method)
    card = {
        "format": FORMAT,
        "backbone": settled.backbone.model_dump(include=NETWORK),
        "dim": widths["backbone"],
        "method": settled.method.name,
        "projection_dim": widths["projection"],
        "layers": widths,
        "preprocessing": {
            "image_size": preprocessing.image_size,
            "resize": "shorter side, then centre crop",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        },
        "config": settled.model_dump(mode="json"),
        **about,
    }
    settle(directory / HEADS, _bytes(_head_weights(method)))
    weights = settle(directory / WEIGHTS, _bytes(method.backbone.body.state_dict()))
    # The card comes last: with it the folder is a model.
    settle(directory / CARD, json.dumps(card, indent=1, allow_nan=False).encode())
    return weights, card


def load_card(directory: Path) -> dict[str, Any]:
    """Return the artifact's card. Raises BadModel."""
    try:
        card = json.loads((directory / CARD).read_bytes())
    except (OSError, ValueError) as error:
        raise BadModel(f"The model's {CARD} is missing or damaged.") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise BadModel("The model was written by another version.")
    return card


def load(directory: Path, device: str | torch.device = "cpu", *, precision: str = "fp32") -> Encoder:
    """Return the encoder that `save` wrote. Raises BadModel when the folder holds none that is whole."""
    encoder = load_untrained(directory, device, seed=0, precision=precision)
    _load(encoder.method.backbone.body, directory / WEIGHTS)
    own = _head_weights(encoder.method)
    found = _read(directory / HEADS)
    if own.keys() != found.keys():
        raise BadModel(f"The model's {HEADS} does not fit its {CARD}.")
    _fill(encoder.method, encoder.method.state_dict() | found, HEADS)
    return encoder


def load_untrained(
    directory: Path, device: str | torch.device = "cpu", *, seed: int, precision: str = "fp32"
) -> Encoder:
    """Return an encoder of the artifact's shape and preprocessing with random weights, for comparison."""
    card = load_card(directory)
    try:
        preprocessing = Preprocessing.of_card(card)
        method = build(_described(card["config"]), seed)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigUnfit) as error:
        raise BadModel(f"The model's {CARD} does not describe an encoder of this version.") from error
    place(method, torch.device(device), precision)
    return Encoder(method, preprocessing, precision=precision)


def load_backbone(backbone: Backbone, directory: Path) -> None:
    """Give a backbone of the same shape the artifact's weights. Raises BadModel when they do not fit."""
    _load(backbone.body, directory / WEIGHTS)


def build(settled: Pretrain, seed: int) -> Method:
    """Return the method of a resolved config, with the random weights of `seed`."""
    torch.manual_seed(seed)
    method = METHODS[settled.method.name](settled.method, backbones.build(settled.backbone))
    assert isinstance(method, Method)
    return method


def _described(settled: Mapping[str, Any]) -> Pretrain:
    """What a stored config says of the network. The rest, on how it was trained, may be beyond what is allowed now."""
    backbone = settled["backbone"]
    fields = (
        {"name"} if config.is_torchvisions(backbone["name"]) else {*NETWORK, "zero_init_residual"} & backbone.keys()
    )
    network = config.parse({"method": settled["method"], "backbone": {field: backbone[field] for field in fields}})
    assert isinstance(network, Pretrain)
    return network


def _head_weights(method: Method) -> dict[str, Tensor]:
    return {name: value for name, value in method.state_dict().items() if not name.startswith("backbone.")}


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
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise BadModel(f"The model's {name} belongs to a network of another shape.") from error
