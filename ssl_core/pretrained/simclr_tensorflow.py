"""Import of TensorFlow checkpoints of google-research/simclr.

A checkpoint is TensorFlow's (of version 1), which TensorFlow reads, or a `.npz` of the same variables. The number of
convolutions identifies the network; google-research/simclr numbers them, and the batch norms, in order of creation.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from ssl_core.config import Backbone as BackboneConfig
from ssl_core.config.architectures import RESNETS, ResNetShape
from ssl_core.errors import BadWeights, PackageMissing
from ssl_core.models import backbones
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.heads import MLP
from ssl_core.models.resnet import ResNet
from ssl_core.pretrained.import_report import ImportReport
from ssl_core.serialization import saved_model

IMAGE_SIZE = {"imagenet": 224, "cifar": 32}
_CONVOLUTION = r"base_model/conv2d(?:_(\d+))?/kernel"
_HEAD_LAYER = r"(head_contrastive/n?l_(\d+))/dense/kernel"
_NPZ_DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Variables:
    """A checkpoint's variables, which are read lazily."""

    path: Path
    names: frozenset[str]
    get: Callable[[str], NDArray[Any]]
    damage: tuple[type[Exception], ...]  # raised by `get` when the file is damaged

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.names:
            raise BadWeights("missing_weights", f"{self.path} lacks the variable {name}.")
        try:
            return self.get(name)
        except self.damage as error:
            raise BadWeights("not_weights", f"{self.path} is damaged at {name}: {error}") from error


def import_simclr(checkpoint: Path, directory: Path) -> ImportReport:
    """Convert the checkpoint to a saved model in `directory`. Raises BadWeights and PackageMissing.

    The model's images are in [0, 1], not normalised, of 224 px, or 32 with a CIFAR stem. google-research/simclr
    evaluates on the central 87.5 % of an image, ours on the whole central square. Without a head in the checkpoint the
    model has no layer `projection`.
    """
    variables = read(checkpoint)
    head = _list_head_scopes(variables)
    network = _find_backbone(variables)
    with torch.random.fork_rng():  # all random weights are overwritten
        backbone = backbones.build(network)
        projector = _build_projector(variables, head, backbone.dim)
    assert isinstance(backbone, ResNet)
    parameters = dict(chain(_map_backbone(backbone), _map_head(projector, head)))
    for name, parameter in parameters.items():
        _load(parameter, name, variables)
    _save(directory, backbone, projector, network)
    return ImportReport(
        network,
        matched=len(parameters),
        left_out=sorted(variables.names - parameters.keys()),
        values=sum(parameter.numel() for parameter in parameters.values()),
        head=tuple(parameters[f"{scope}/dense/kernel"].shape[1] for scope in head),
        layout=network.layout,
    )


def read(checkpoint: Path) -> Variables:
    """Return the variables of a `.npz`, or of a checkpoint by its prefix, one of its files or its folder.

    Raises BadWeights and PackageMissing.
    """
    return _read_npz(checkpoint) if checkpoint.suffix == ".npz" else _read_checkpoint(checkpoint)


def _read_npz(path: Path) -> Variables:
    if not zipfile.is_zipfile(path):
        raise BadWeights("not_weights", f"{path} cannot be read: it is missing, truncated, or no .npz.")
    try:
        arrays = np.load(path, allow_pickle=False)
    except _NPZ_DAMAGE as error:
        raise BadWeights("not_weights", f"{path} cannot be read: {error}") from error
    return Variables(path, frozenset(arrays.files), arrays.__getitem__, _NPZ_DAMAGE)


def _read_checkpoint(path: Path) -> Variables:
    try:
        import tensorflow  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        fix = "pip install 'twoviews[tensorflow]', or convert the checkpoint to a .npz of its variables"
        raise PackageMissing(f"Reading {path} needs TensorFlow, which is not installed: {fix}.") from error
    damage = (tensorflow.errors.OpError, ValueError, IndexError, RuntimeError)
    try:
        reader = tensorflow.train.load_checkpoint(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", str(path)))
    except damage as error:
        raise BadWeights("not_weights", f"{path} cannot be read as a checkpoint: {error}") from error
    return Variables(path, frozenset(reader.get_variable_to_shape_map()), reader.get_tensor, damage)


def _list_head_scopes(variables: Variables) -> list[str]:
    """The variable scopes of the head's layers, first to last."""
    found = [match for name in variables.names if (match := re.fullmatch(_HEAD_LAYER, name))]
    return [match[1] for match in sorted(found, key=lambda match: int(match[2]))]


def _build_projector(variables: Variables, head: Sequence[str], dim: int) -> MLP | None:
    widths = [_get_shape(variables, f"{scope}/dense/kernel", 2)[1] for scope in head]
    return MLP((dim, *widths), last_norm="bn_no_bias") if widths else None


def _find_backbone(variables: Variables) -> BackboneConfig:
    """The backbone's config, from the number of convolutions and the shape of the first."""
    numbers = [int(match[1] or 0) for name in variables.names if (match := re.fullmatch(_CONVOLUTION, name))]
    known = {
        _count_convolutions(shape, *variant): (name, *variant)
        for name, shape in RESNETS.items()
        for variant in _list_variants(shape)
    }
    convolutions = max(numbers, default=-1) + 1
    if convolutions not in known:
        raise BadWeights(
            "unknown_network",
            f"{variables.path} has {convolutions} convolutions named base_model/conv2d…; no supported network has that"
            " number.",
        )
    name, selective, deep = known[convolutions]
    size, _, _, channels = _get_shape(variables, "base_model/conv2d/kernel", 4)
    try:
        return BackboneConfig(
            name=name,
            width=(2 if deep else 1) * channels / 64,
            stem="imagenet" if deep or size == 7 else "cifar",
            selective_kernel=selective,
            layout="google",
            zero_init_residual=True,
        )
    except ValidationError as error:
        detail = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise BadWeights("unknown_network", f"{variables.path} holds no supported network: {detail}.") from error


def _list_variants(shape: ResNetShape) -> list[tuple[bool, bool]]:
    """The variants of a ResNet in google-research/simclr: (selective kernels, stem of three convolutions)."""
    if shape.inner > 1:
        return []
    return [(False, False)] + ([(True, True), (True, False)] if shape.block == "bottleneck" else [])


def _count_convolutions(shape: ResNetShape, selective: bool, deep: bool) -> int:
    in_block = 2 if shape.block == "basic" else 5 if selective else 3
    projections = len(shape.depths)
    return (3 if deep else 1) + projections + in_block * sum(shape.depths)


def _map_backbone(network: ResNet) -> Iterator[tuple[str, Tensor]]:
    """Yield each variable of the backbone with a view of our parameter in its shape."""
    convolutions, norms = count(), count()
    for layer in _iterate_in_creation_order(network):
        if isinstance(layer, nn.Conv2d):
            kernel = layer.weight.permute(2, 3, 1, 0)  # O×I×H×W as H×W×I×O
            yield f"base_model/conv2d{_suffix(next(convolutions))}/kernel", kernel
        elif isinstance(layer, nn.BatchNorm2d):
            yield from _map_norm(f"base_model/batch_normalization{_suffix(next(norms))}", layer)


def _iterate_in_creation_order(network: ResNet) -> Iterator[nn.Module]:
    """Yield our modules in google-research/simclr's order of creation: the shortcut of a block is first."""
    yield from network.conv1.modules()
    yield network.bn1
    for block in chain(network.layer1, network.layer2, network.layer3, network.layer4):
        children = dict(block.named_children())
        shortcut = children.pop("downsample", nn.Identity())
        for child in (shortcut, *children.values()):
            yield from child.modules()


def _suffix(number: int) -> str:
    return f"_{number}" if number else ""


def _map_norm(scope: str, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Iterator[tuple[str, Tensor]]:
    ours = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for theirs, name in ours.items():
        if (parameter := getattr(norm, name)) is not None:
            yield f"{scope}/{theirs}", parameter


def _map_head(projector: MLP | None, head: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    layers = [] if projector is None else list(projector)
    dense = (layer for layer in layers if isinstance(layer, nn.Linear))
    norms = (layer for layer in layers if isinstance(layer, nn.BatchNorm1d))
    for scope, layer, norm in zip(head, dense, norms, strict=True):
        yield f"{scope}/dense/kernel", layer.weight.T
        yield from _map_norm(f"{scope}/batch_normalization", norm)


def _get_shape(variables: Variables, name: str, dimensions: int) -> tuple[int, ...]:
    shape = variables[name].shape
    if len(shape) != dimensions:
        raise BadWeights("wrong_shape", f"{name} has the shape {list(shape)}, not one of {dimensions} dimensions.")
    return shape


@torch.no_grad()
def _load(parameter: Tensor, name: str, variables: Variables) -> None:
    value = variables[name]
    if value.shape != parameter.shape:
        raise BadWeights(
            "wrong_shape", f"{name} has the shape {list(value.shape)}, where {list(parameter.shape)} is needed."
        )
    if value.dtype.kind != "f" or not np.isfinite(value).all():
        raise BadWeights("not_finite", f"{name} holds values that are not finite numbers.")
    parameter.copy_(torch.from_numpy(value.astype(np.float32)))


def _save(directory: Path, backbone: ResNet, projector: MLP | None, network: BackboneConfig) -> None:
    preprocessing = Preprocessing(IMAGE_SIZE[network.stem], (0.0,) * 3, (1.0,) * 3)
    heads = {} if projector is None else {"projector": projector}
    metadata = {"method": "simclr", "metrics": {}, "source": "google-research/simclr"}
    saved_model.save(directory, Encoder(backbone, projector, preprocessing), network, heads, metadata)
