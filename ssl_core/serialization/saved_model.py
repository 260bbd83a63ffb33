"""Saved models: writing a trained encoder to a folder, and loading it again.

The folder holds `weights.safetensors` (the backbone, under torchvision's names), `heads.safetensors` (projector,
classifier and other heads), `README.md` (the card as Markdown) and `model.json` (the card: architecture, preprocessing,
provenance, and the SHA-256 of the other files and of itself). The same tensors give the same bytes. A file is checked
when it is loaded, unless the card is of an earlier version and has no SHA-256.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ssl_core.checksums import document
from ssl_core.config import Backbone as BackboneConfig
from ssl_core.config import is_torchvisions
from ssl_core.config.requirements import count_channels
from ssl_core.device import to_device
from ssl_core.errors import BadModel, Corrupt, ModelMissing
from ssl_core.files import WrittenFile, describe, make_folder, remove_durably, write_atomic
from ssl_core.models import backbones
from ssl_core.models.backbones import Backbone
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.heads import MLP
from ssl_core.serialization import model_card

FORMAT = 2
NETWORK = {
    "name",
    "width",
    "stem",
    "channels",
    "selective_kernel",
    "layout",
}  # fields of a backbone's config that its weights depend on
WEIGHTS, HEADS, CARD, README = "weights.safetensors", "heads.safetensors", "model.json", "README.md"


def save(
    directory: Path,
    encoder: Encoder,
    backbone: BackboneConfig,
    heads: Mapping[str, nn.Module],
    metadata: Mapping[str, Any],
) -> tuple[WrittenFile, dict[str, Any]]:
    """Write the model into `directory`, in place of another one; return its weights file and its card. Raises OSError.

    backbone: the resolved config of the encoder's backbone; heads: all heads to save, the projector as `projector` and
    the classifier as `classifier`; metadata: further fields of the card, with the classifier's classes.
    """
    make_folder(directory)
    remove_durably(directory / CARD)  # of an earlier model: without its card it is none while its files are replaced
    projector, preprocessing = encoder.projector, encoder.preprocessing
    card = {
        "format": FORMAT,
        "backbone": backbone.model_dump(mode="json", include=NETWORK) | {"channels": encoder.channels},
        "projector": projector.description if projector is not None else None,
        "dim": encoder.dim,
        "projection_dim": encoder.layers.get("projection"),
        "layers": encoder.layers,
        "preprocessing": {
            "image_size": preprocessing.image_size,
            "resize": "shorter side, then centre crop",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "range": preprocessing.values.to_json() if preprocessing.values else None,
        },
        **metadata,
    }
    tensors = {f"{name}.{key}": value for name, head in heads.items() for key, value in head.state_dict().items()}
    heads_file = write_atomic(directory / HEADS, _to_bytes(tensors))
    weights = write_atomic(directory / WEIGHTS, _to_bytes(encoder.backbone.body.state_dict()))
    readme = write_atomic(directory / README, model_card.render_markdown(card).encode())
    written = {file.path.name: _describe(file) for file in (weights, heads_file, readme)}
    card = document.seal(card | {"files": written})
    # The card is last: without it the folder is no model.
    write_atomic(directory / CARD, json.dumps(card, indent=1, allow_nan=False).encode())
    return weights, card


def load_card(directory: Path) -> dict[str, Any]:
    """Return the model's card. Raises BadModel, and Corrupt when it does not have its checksum."""
    try:
        card = document.read(directory / CARD)
    except OSError as error:
        raise _unreadable(CARD, error) from error
    if card.get("format") not in (1, FORMAT):
        raise BadModel("The model was written by another version.")
    return card


def compute_digest(directory: Path) -> str:
    """Return the SHA-256 over the model's files, in hexadecimal."""
    digest = hashlib.sha256()
    for name in (CARD, WEIGHTS, HEADS):
        if (path := directory / name).is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def count_head_layers(card: Mapping[str, Any]) -> int:
    """Return the number of layers of the model's projector, 0 without one."""
    description = _projector(card, dim=0)
    return len(description["widths"]) - 1 if description is not None else 0


def load(directory: Path, device: str | torch.device = "cpu", *, precision: str = "fp32") -> Encoder:
    """Return the encoder that `save` wrote.

    Raises ModelMissing when a file is missing, BadModel when one is of another network, Corrupt when one is damaged.
    """
    encoder = load_untrained(directory, device, seed=0, precision=precision)
    load_backbone(encoder.backbone, directory)
    for name, head in (("projector", encoder.projector), ("classifier", encoder.classifier)):
        if head is not None:
            load_head(head, directory, name)
    return encoder


def load_untrained(
    directory: Path, device: str | torch.device = "cpu", *, seed: int, precision: str = "fp32"
) -> Encoder:
    """Return an encoder of the model's architecture and preprocessing with random weights, as a baseline."""
    card = load_card(directory)
    torch.manual_seed(seed)
    try:
        backbone = backbones.build(_backbone(card))
        description = _projector(card, backbone.dim)
        projector = MLP.of_description(description) if description is not None else None
        width = projector.widths[-1] if projector is not None else backbone.dim
        classifier = nn.Linear(width, len(card["classifier"]["classes"])) if card.get("classifier") else None
        encoder = Encoder(backbone, projector, Preprocessing.of_card(card), precision=precision, classifier=classifier)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadModel(f"The model's {CARD} does not describe an encoder of this version.") from error
    to_device(encoder, torch.device(device), precision)
    return encoder


def load_backbone(backbone: Backbone, directory: Path) -> None:
    """Load the model's weights into a backbone of the same architecture. Raises BadModel and Corrupt."""
    _load_state_dict(backbone.body, _read(directory, WEIGHTS), WEIGHTS)


def load_head(head: nn.Module, directory: Path, name: str) -> None:
    """Load the weights saved under that name into a head of the same shape. Raises BadModel and Corrupt."""
    tensors = _read(directory, HEADS)
    weights = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    _load_state_dict(head, weights, HEADS)


def _backbone(card: Mapping[str, Any]) -> BackboneConfig:
    """The backbone's config; fields other than name and channels do not apply to a torchvision model."""
    shape = {"channels": count_channels(card["preprocessing"])} | card["backbone"]  # an earlier version's had none
    if is_torchvisions(shape["name"]):
        return BackboneConfig(name=shape["name"], channels=shape["channels"])
    return BackboneConfig.model_validate_json(json.dumps({"zero_init_residual": False} | shape))


def _projector(card: Mapping[str, Any], dim: int) -> dict[str, Any] | None:
    """The projector's `MLP.description`; in a card of format 1 it is part of the method's config."""
    if card["format"] != 1:
        return card["projector"]
    method = card["config"]["method"]
    simclr = method["name"] == "simclr"
    norm = method["projector_batch_norm"] if simclr else True
    return {
        "widths": (dim, *method["projector"]),
        "hidden_norm": norm,
        "last_norm": "bn_no_affine" if not simclr else "bn_no_bias" if norm else "none",
        "relu_first": method.get("projector_relu_first", False),
    }


def _to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(data)


def _describe(file: WrittenFile) -> dict[str, Any]:
    return {"sha256": file.sha256, "size_bytes": file.size_bytes}


def _read(directory: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a file, whose SHA-256 is in the card unless an earlier version wrote it."""
    recorded = load_card(directory).get("files", {}).get(name)
    try:
        data = (directory / name).read_bytes()
    except OSError as error:
        raise _unreadable(name, error) from error
    if recorded is not None and hashlib.sha256(data).hexdigest() != recorded["sha256"]:
        raise Corrupt(name)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise Corrupt(name) from error


def _unreadable(name: str, error: OSError) -> BadModel:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ModelMissing(f"The model's {name} is missing.")
    return BadModel(f"The model's {name} cannot be read: {describe(error)}.")


def _load_state_dict(module: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    own = module.state_dict()  # has `_metadata.version`, without which torchvision's MNASNets do not load
    try:
        if own.keys() != weights.keys():
            raise RuntimeError("other keys")
        own.update(weights)
        module.load_state_dict(own)
    except RuntimeError as error:
        raise BadModel(f"The model's {name} belongs to a network of another shape.") from error
