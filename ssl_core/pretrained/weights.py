"""An import: a file of somebody's weights becomes an artifact, without a projector."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ssl_core.config import Import
from ssl_core.errors import BadWeights, is_out_of_memory, tensor_fault
from ssl_core.files import WrittenFile
from ssl_core.models import backbones
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.pretrained import weights_file
from ssl_core.pretrained.match_architecture import COUNTER, MatchedArchitecture, match_architecture
from ssl_core.serialization import provenance, saved_model

_MOST_NAMED = 100  # tensors that were left out
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_CIFAR10 = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])


def import_weights(
    file: Path, directory: Path, asked: Import, told: Mapping[str, Any] = MappingProxyType({})
) -> tuple[WrittenFile, dict[str, Any]]:
    """Write the artifact of the file's weights into `directory`; return its weights file and its card.

    told: of its origin, for `ssl_core.serialization.provenance`.
    The card's `imported` reports what was found, what was left out, and which counters were missing.
    Raises BadWeights, MemoryError and OSError.
    """
    kind, tensors = weights_file.read(file)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    found = match_architecture(shapes, _given(asked.backbone), _given(asked.stem))
    backbone = backbones.build(found.backbone)
    own = backbone.body.state_dict()
    taken = _taken(tensors, found, own)
    own.update(_weights(tensors, taken, own))
    backbone.body.load_state_dict(own)
    encoder = Encoder(backbone, None, _preprocessing(asked, found))
    _try(encoder)
    about = {"method": None, "imported": _file(file, kind, tensors, taken) | _report(tensors, found, taken, own)}
    return saved_model.save(
        directory, encoder, found.backbone, {}, {**provenance.build_card_fields(told, None), **about}
    )


def _given(value: str) -> str | None:
    return None if value == "auto" else value


def _taken(tensors: dict[str, Tensor], found: MatchedArchitecture, own: dict[str, Tensor]) -> dict[str, str]:
    """Our names to theirs, without counters that are none: `half()` of a whole state dict makes numbers of them."""
    fitting = {name for name, value in own.items() if name in found.names and _alike(tensors[found.names[name]], value)}
    return {name: theirs for name, theirs in found.names.items() if name in fitting or not name.endswith(COUNTER)}


def _alike(value: Tensor, own: Tensor) -> bool:
    return (value.dtype, value.shape) == (own.dtype, own.shape)


def _weights(tensors: dict[str, Tensor], taken: dict[str, str], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's weights, in its own types. Raises BadWeights for those that are no finite numbers."""
    faults = [
        tensor_fault(theirs, code, detail)
        for name, theirs in taken.items()
        for code, detail in _faults(tensors[theirs], own[name])
    ]
    if faults:
        raise BadWeights(faults[0]["code"], f"{faults[0]['pointer']}: {faults[0]['detail']}", faults)
    return {name: tensors[theirs].to(own[name].dtype) for name, theirs in taken.items()}


def _faults(value: Tensor, own: Tensor) -> list[tuple[str, str]]:
    if value.is_floating_point() != own.is_floating_point() or value.is_complex():
        return [("wrong_type", f"Is {str(value.dtype).removeprefix('torch.')}.")]
    if not value.to(own.dtype).isfinite().all():
        return [("not_finite", "Holds values that are not finite numbers.")]
    return []


def _preprocessing(asked: Import, found: MatchedArchitecture) -> Preprocessing:
    large = found.backbone.stem == "imagenet"
    mean, std = _IMAGENET if large else _CIFAR10
    return Preprocessing.of(
        asked.image_size if asked.image_size != "auto" else 224 if large else 32,
        mean if asked.mean == "auto" else list(asked.mean),
        std if asked.std == "auto" else list(asked.std),
    )


def _try(encoder: Encoder) -> None:
    """Encode one grey image. Raises BadWeights when the network cannot, or nothing finite comes of it."""
    side = encoder.image_size
    try:
        features = encoder.encode(torch.full((1, side, side, 3), 128, dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise BadWeights("wrong_image_size", f"The network cannot take images of {side} pixels.") from error
    if not features.isfinite().all():
        raise BadWeights("not_finite", "The features of a grey image are not finite numbers.")


def _file(file: Path, kind: str, tensors: dict[str, Tensor], taken: dict[str, str]) -> dict[str, Any]:
    types = {tensors[theirs].dtype for name, theirs in taken.items() if not name.endswith(COUNTER)}
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    names = sorted(str(dtype).removeprefix("torch.") for dtype in types)
    return {"file": {"format": kind, "sha256": sha256, "size_bytes": file.stat().st_size, "types": names}}


def _report(
    tensors: dict[str, Tensor], found: MatchedArchitecture, taken: dict[str, str], own: dict[str, Tensor]
) -> dict[str, Any]:
    theirs = set(taken.values())
    left_out = [name for name in tensors if name not in theirs]
    return {
        "layout": found.layout,
        "prefix": found.prefix,
        "matched": len(taken),
        "missing": [name for name in own if name not in taken],
        "left_out": left_out[:_MOST_NAMED],
        "left_out_count": len(left_out),
        "notes": list(found.notes),
    }
