"""Import of pretrained weights: a file of any supported layout becomes a saved model without a projector."""

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ssl_core.config import Import
from ssl_core.config.views import RGB
from ssl_core.errors import BadWeights, is_out_of_memory, tensor_fault
from ssl_core.files import WrittenFile
from ssl_core.models import backbones
from ssl_core.models.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder, Preprocessing
from ssl_core.pretrained import weights_file
from ssl_core.pretrained.import_report import ImportReport
from ssl_core.pretrained.match_architecture import COUNTER, MatchedArchitecture, match_architecture
from ssl_core.serialization import provenance, saved_model
from ssl_core.serialization.provenance import Provenance

_CIFAR10_MEAN, _CIFAR10_STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


def import_weights(
    file: Path, directory: Path, config: Import, origin: Provenance = MappingProxyType({})
) -> tuple[WrittenFile, dict[str, Any]]:
    """Convert the file to a saved model in `directory`; return its weights file and its card.

    The card's `imported` is the report: the layout found, and the tensors matched, left out and missing.
    Raises BadWeights, MemoryError and OSError.
    """
    kind, tensors = weights_file.read(file)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    found = match_architecture(shapes, _get_known(config.backbone), _get_known(config.stem))
    backbone = backbones.build(found.backbone)
    own = backbone.body.state_dict()
    names = _select_names(tensors, found, own)
    own.update(_convert(tensors, names, own))
    backbone.body.load_state_dict(own)
    encoder = Encoder(backbone, None, _build_preprocessing(config, found))
    _require_finite_features(encoder)
    used = set(names.values())
    report = ImportReport(
        found.backbone,
        matched=len(names),
        left_out=[name for name in tensors if name not in used],
        layout=found.layout,
        prefix=found.prefix,
        missing=[name for name in own if name not in names],
        notes=found.notes,
    )
    imported = _describe_file(file, kind, tensors, names) | report.to_card()
    metadata = {**provenance.build_card_fields(origin, None), "method": None, "imported": imported}
    return saved_model.save(directory, encoder, found.backbone, {}, metadata)


def _get_known(value: str) -> str | None:
    return None if value == "auto" else value


def _select_names(tensors: dict[str, Tensor], found: MatchedArchitecture, own: dict[str, Tensor]) -> dict[str, str]:
    """Map our names to the file's, without counters of another type: `half()` makes floats of them."""
    fitting = {
        name for name, value in own.items() if name in found.names and _has_same_type(tensors[found.names[name]], value)
    }
    return {name: theirs for name, theirs in found.names.items() if name in fitting or not name.endswith(COUNTER)}


def _has_same_type(value: Tensor, own: Tensor) -> bool:
    return (value.dtype, value.shape) == (own.dtype, own.shape)


def _convert(tensors: dict[str, Tensor], names: dict[str, str], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in the network's dtypes. Raises BadWeights for those that are not finite."""
    faults = [
        tensor_fault(theirs, code, detail)
        for name, theirs in names.items()
        for code, detail in _find_faults(tensors[theirs], own[name])
    ]
    if faults:
        raise BadWeights(faults[0]["code"], f"{faults[0]['pointer']}: {faults[0]['detail']}", faults)
    return {name: tensors[theirs].to(own[name].dtype) for name, theirs in names.items()}


def _find_faults(value: Tensor, own: Tensor) -> list[tuple[str, str]]:
    if value.is_floating_point() != own.is_floating_point() or value.is_complex():
        return [("wrong_type", f"Is {str(value.dtype).removeprefix('torch.')}.")]
    if not value.to(own.dtype).isfinite().all():
        return [("not_finite", "Holds values that are not finite numbers.")]
    return []


def _build_preprocessing(config: Import, found: MatchedArchitecture) -> Preprocessing:
    large, channels = found.backbone.stem == "imagenet", found.backbone.input_channels
    for name, values in (("mean", config.mean), ("std", config.std)):
        count = RGB if values == "auto" else len(values)
        if count != channels:
            detail = (
                f"The network takes images of {channels} channel{'s' * (channels > 1)}, and `{name}` is of {count}."
            )
            raise BadWeights("channels_differ", detail)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if large else (_CIFAR10_MEAN, _CIFAR10_STD)
    return Preprocessing.of(
        config.image_size if config.image_size != "auto" else 224 if large else 32,
        mean if config.mean == "auto" else list(config.mean),
        std if config.std == "auto" else list(config.std),
    )


def _require_finite_features(encoder: Encoder) -> None:
    """Encode a grey image. Raises BadWeights when the network cannot, or its features are not finite."""
    side = encoder.image_size
    try:
        features = encoder.encode(torch.full((1, side, side, encoder.channels), 128, dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise BadWeights("wrong_image_size", f"The network cannot take images of {side} pixels.") from error
    if not features.isfinite().all():
        raise BadWeights("not_finite", "The features of a grey image are not finite numbers.")


def _describe_file(file: Path, kind: str, tensors: dict[str, Tensor], names: dict[str, str]) -> dict[str, Any]:
    types = {tensors[theirs].dtype for name, theirs in names.items() if not name.endswith(COUNTER)}
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    dtypes = sorted(str(dtype).removeprefix("torch.") for dtype in types)
    return {"file": {"format": kind, "sha256": sha256, "size_bytes": file.stat().st_size, "types": dtypes}}
