"""google-research/simclr's checkpoints: their variables become a model of ours.

A checkpoint is TensorFlow's (of version 1), which TensorFlow reads, or a `.npz` of the same variables. Its network is
told by the number of its convolutions; google's code numbers them, and its batch norms, in the order it makes them.
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
from ssl_core.models import backbones
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.heads import MLP
from ssl_core.models.resnet import ResNet
from ssl_core.serialization import saved_model

IMAGE_SIZE = {"imagenet": 224, "cifar": 32}
_CONVOLUTION = r"base_model/conv2d(?:_(\d+))?/kernel"
_HEAD_LAYER = r"(head_contrastive/n?l_(\d+))/dense/kernel"
_NPZ_DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
_LISTED = 3  # names of left-out variables in a report


class CannotImport(Exception):
    """What was given cannot become a model; the text says why."""


@dataclass(frozen=True)
class Variables:
    """A checkpoint's variables, each read when it is asked for."""

    path: Path
    names: frozenset[str]
    get: Callable[[str], NDArray[Any]]
    damage: tuple[type[Exception], ...]  # what `get` raises when the file is damaged

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.names:
            raise CannotImport(f"{self.path} lacks the variable {name}.")
        try:
            return self.get(name)
        except self.damage as error:
            raise CannotImport(f"{self.path} is damaged at {name}: {error}") from error


@dataclass(frozen=True)
class Imported:
    """What was read: the network, the width of each head layer, how much it was, and what had no place."""

    network: BackboneConfig
    head: tuple[int, ...]
    variables: int
    values: int
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        network = self.network
        kernels = " with selective kernels" if network.selective_kernel else ""
        widths = ", ".join(map(str, self.head)) or "none"
        some = ", ".join(self.left_out[:_LISTED]) + (", …" if len(self.left_out) > _LISTED else "")
        return (
            f"network: {network.name}{kernels}, width {network.width:g}, {network.stem} stem\n"
            f"head: {widths}\n"
            f"read: {self.variables} variables, {self.values:,} values\n"
            f"left out: {len(self.left_out)} variables{f' ({some})' if some else ''}"
        )


def import_simclr(checkpoint: Path, directory: Path) -> Imported:
    """Write the checkpoint's model into `directory` as an artifact; return what was read. Raises CannotImport.

    The model wants images in [0, 1] as they are, of 224 px, or 32 with a CIFAR stem. google evaluates on the central
    87.5 % of an image, an encoder of ours on the whole central square. Without a head in the checkpoint the
    model's is random, and its card names no layer `projection`.
    """
    variables = read(checkpoint)
    head = _head(variables)
    network = _network(variables)
    with torch.random.fork_rng():  # all that is drawn here is overwritten
        backbone = backbones.build(network)
        projector = _projector(variables, head, backbone.dim)
    assert isinstance(backbone, ResNet)
    places = dict(chain(_backbone_places(backbone), _head_places(projector, head)))
    for name, place in places.items():
        _fill(place, name, variables)
    _save(directory, backbone, projector, network)
    widths = tuple(places[f"{scope}/dense/kernel"].shape[1] for scope in head)
    values = sum(place.numel() for place in places.values())
    return Imported(network, widths, len(places), values, tuple(sorted(variables.names - places.keys())))


def read(checkpoint: Path) -> Variables:
    """Return the variables of a `.npz`, or of a checkpoint by its prefix, one of its files or its folder.

    Raises CannotImport.
    """
    return _archive(checkpoint) if checkpoint.suffix == ".npz" else _checkpoint(checkpoint)


def _archive(path: Path) -> Variables:
    if not zipfile.is_zipfile(path):
        raise CannotImport(f"{path} cannot be read: it is missing, cut off, or no .npz.")
    try:
        arrays = np.load(path, allow_pickle=False)
    except _NPZ_DAMAGE as error:
        raise CannotImport(f"{path} cannot be read: {error}") from error
    return Variables(path, frozenset(arrays.files), arrays.__getitem__, _NPZ_DAMAGE)


def _checkpoint(path: Path) -> Variables:
    try:
        import tensorflow  # noqa: PLC0415 - an extra, which takes seconds
    except ImportError as error:
        needs = "pip install 'twoviews[tensorflow]'; a .npz of the same variables needs nothing"
        raise CannotImport(f"TensorFlow reads {path}, but is not installed: {needs}.") from error
    damage = (tensorflow.errors.OpError, ValueError, IndexError, RuntimeError)
    try:
        reader = tensorflow.train.load_checkpoint(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", str(path)))
    except damage as error:
        raise CannotImport(f"{path} cannot be read as a checkpoint: {error}") from error
    return Variables(path, frozenset(reader.get_variable_to_shape_map()), reader.get_tensor, damage)


def _head(variables: Variables) -> list[str]:
    """The scopes of the head's layers, first to last."""
    found = [match for name in variables.names if (match := re.fullmatch(_HEAD_LAYER, name))]
    return [match[1] for match in sorted(found, key=lambda match: int(match[2]))]


def _projector(variables: Variables, head: Sequence[str], dim: int) -> MLP | None:
    widths = [_shape(variables, f"{scope}/dense/kernel", 2)[1] for scope in head]
    return MLP((dim, *widths), last_norm="bn_no_bias") if widths else None


def _network(variables: Variables) -> BackboneConfig:
    """The backbone's config, by the number of convolutions and the shape of the first."""
    numbers = [int(match[1] or 0) for name in variables.names if (match := re.fullmatch(_CONVOLUTION, name))]
    known = {_convolutions(shape, *form): (name, *form) for name, shape in RESNETS.items() for form in _forms(shape)}
    convolutions = max(numbers, default=-1) + 1
    if convolutions not in known:
        raise CannotImport(
            f"{variables.path} has {convolutions} convolutions named base_model/conv2d…; no network that can be built"
            " here has so many."
        )
    name, selective, deep = known[convolutions]
    size, _, _, channels = _shape(variables, "base_model/conv2d/kernel", 4)
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
        raise CannotImport(f"{variables.path} holds no network that can be built here: {detail}.") from error


def _forms(shape: ResNetShape) -> list[tuple[bool, bool]]:
    """What a ResNet of google's can be: (with selective kernels, with a stem of three convolutions)."""
    if shape.inner > 1:
        return []
    return [(False, False)] + ([(True, True), (True, False)] if shape.block == "bottleneck" else [])


def _convolutions(shape: ResNetShape, selective: bool, deep: bool) -> int:
    in_block = 2 if shape.block == "basic" else 5 if selective else 3
    projections = len(shape.depths)
    return (3 if deep else 1) + projections + in_block * sum(shape.depths)


def _backbone_places(network: ResNet) -> Iterator[tuple[str, Tensor]]:
    """Where each variable of the backbone goes, as a view of our parameter that has google's shape."""
    convolutions, norms = count(), count()
    for layer in _in_googles_order(network):
        if isinstance(layer, nn.Conv2d):
            kernel = layer.weight.permute(2, 3, 1, 0)  # O×I×H×W as H×W×I×O
            yield f"base_model/conv2d{_suffix(next(convolutions))}/kernel", kernel
        elif isinstance(layer, nn.BatchNorm2d):
            yield from _norm_places(f"base_model/batch_normalization{_suffix(next(norms))}", layer)


def _in_googles_order(network: ResNet) -> Iterator[nn.Module]:
    """Our modules as google's code makes theirs: the shortcut of a block comes first."""
    yield from network.conv1.modules()
    yield network.bn1
    for block in chain(network.layer1, network.layer2, network.layer3, network.layer4):
        parts = dict(block.named_children())
        shortcut = parts.pop("downsample", nn.Identity())
        for part in (shortcut, *parts.values()):
            yield from part.modules()


def _suffix(number: int) -> str:
    return f"_{number}" if number else ""


def _norm_places(scope: str, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Iterator[tuple[str, Tensor]]:
    ours = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for theirs, name in ours.items():
        if (place := getattr(norm, name)) is not None:
            yield f"{scope}/{theirs}", place


def _head_places(projector: MLP | None, head: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    layers = [] if projector is None else list(projector)
    dense = (layer for layer in layers if isinstance(layer, nn.Linear))
    norms = (layer for layer in layers if isinstance(layer, nn.BatchNorm1d))
    for scope, layer, norm in zip(head, dense, norms, strict=True):
        yield f"{scope}/dense/kernel", layer.weight.T
        yield from _norm_places(f"{scope}/batch_normalization", norm)


def _shape(variables: Variables, name: str, dimensions: int) -> tuple[int, ...]:
    shape = variables[name].shape
    if len(shape) != dimensions:
        raise CannotImport(f"{name} has the shape {list(shape)}, not one of {dimensions} dimensions.")
    return shape


@torch.no_grad()
def _fill(place: Tensor, name: str, variables: Variables) -> None:
    value = variables[name]
    if value.shape != place.shape:
        raise CannotImport(f"{name} has the shape {list(value.shape)}, where {list(place.shape)} is needed.")
    if value.dtype.kind != "f" or not np.isfinite(value).all():
        raise CannotImport(f"{name} holds values that are not finite numbers.")
    place.copy_(torch.from_numpy(value.astype(np.float32)))


def _save(directory: Path, backbone: ResNet, projector: MLP | None, network: BackboneConfig) -> None:
    preprocessing = Preprocessing(IMAGE_SIZE[network.stem], (0.0,) * 3, (1.0,) * 3)
    heads = {} if projector is None else {"projector": projector}
    about = {"method": "simclr", "metrics": {}, "source": "google-research/simclr"}
    saved_model.save(directory, Encoder(backbone, projector, preprocessing), network, heads, about)
