"""Resolution: every `"auto"` of a config replaced by a value, from the data, the device and the method.

The result is a valid config that resolves to itself, so running it again gives the same run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from ssl_core.config import (
    OPTIMIZERS,
    TORCHVISIONS_OWN,
    Backbone,
    Optimizer,
    Phase,
    TrainingRun,
    Views,
    is_torchvisions,
    requirements,
    view_sets,
)
from ssl_core.config.base import OnDevice
from ssl_core.config.fields import known
from ssl_core.config.training import OnlineAccuracy
from ssl_core.device import Device
from ssl_core.errors import ConfigUnfit
from ssl_core.models import backbones
from ssl_core.serialization import saved_model

Run = TypeVar("Run", bound=OnDevice)
Fit = TypeVar("Fit", bound=TrainingRun)
Data = TypeVar("Data", bound=BaseModel)

DEFAULT_EPOCHS = 100
ONLINE_EVALUATIONS = 8  # in a run, at most
ONLINE_IMAGES = {"cpu": 2_500, "cuda": 5_000}  # of each split
WARMUP_SHARE = 0.05
_COMPILED_STEPS, _COMPILED_MINUTES = 10_000, 10  # of the shortest run on a GPU that gains from a minute of compilation
_SMALLER = ((0.5, 0.5), (0.625, 0.8), (0.75, 0.95))  # shares of the full size, each until that share of the run
_SMALL = 64  # pixels: images up to this size are trained at their own size, with a CIFAR stem
_WHOLE_IMAGE_ONLY = ("torchvision_vit", "torchvision_maxvit")  # models built for one image size, 224


@dataclass(frozen=True)
class Length:
    """The length of a run, and the number of online evaluations where the config leaves it open."""

    epochs: int
    evaluations: int = ONLINE_EVALUATIONS


def resolve(config: Fit, report: Mapping[str, Any], device: Device, *, start: Mapping[str, Any] | None = None) -> Fit:
    """Return the config with nothing left at "auto" and its length in epochs.

    A config with `minutes` keeps these, and with them what depends on the length, until `with_length`. report: the
    dataset's `dataset.json`. start: the card of the job's model; its network is taken where the config leaves it open.
    Raises ConfigUnfit when the config cannot be run on this data.
    """
    _check_images(config, report)
    _check_channels(config, requirements.count_channels(report))
    start = _start(config, start)
    config = resolve_device(config, device)
    image_size = _image_size(config, report, device, start)
    config = _with(config, image_size=image_size, batch_size=_batch_size(config, report))
    config = _with(config, phases=_phases(config, device))
    config = _with(config, backbone=_backbone(config, report, image_size, device, start.get("backbone", {})))
    config = config.with_method_resolved(_dim(config))
    config = _with(config, optimizer=_optimizer(config), views=_views(config), evaluation=_evaluation(config))
    config = _with(config, compile=_is_compiled(config, report))
    return config if config.minutes is not None else with_length(config, Length(config.epochs or DEFAULT_EPOCHS))


def with_length(config: Fit, length: Length) -> Fit:
    """Return a config, resolved except for its length, with this length."""
    epochs = length.epochs
    warmup, every = config.schedule.warmup_epochs, config.evaluation.every_epochs
    schedule = _with(config.schedule, warmup_epochs=WARMUP_SHARE * epochs if warmup == "auto" else warmup)
    every = math.ceil(epochs / length.evaluations) if every == "auto" else every
    evaluation = _with(config.evaluation, every_epochs=every)
    return _with(config, epochs=epochs, minutes=None, schedule=schedule, evaluation=evaluation)


def resolve_device(config: Run, device: Device) -> Run:
    """Return a config with its device and its precision resolved."""
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if device.gains_from_bf16 else "fp32"
    exact = {"exact": config.exact in (True, "auto")} if isinstance(config, TrainingRun) else {}
    return _with(config, device=device.device, precision=precision, **exact)


def _start(config: TrainingRun, model: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The card of the model that training starts from, or nothing. Raises ConfigUnfit when it does not fit."""
    if config.needs_model and model is None:
        raise ConfigUnfit(f"{config.title} needs a model.")
    if config.model_is_teacher or model is None:
        return {}
    layers = saved_model.count_head_layers(model) if config.head_layers else 0
    if config.head_layers > layers:
        raise ConfigUnfit(requirements.head_too_short(config.head_layers, layers))
    return model


def _check_images(config: TrainingRun, report: Mapping[str, Any]) -> None:
    """Raise ConfigUnfit when the config asks for more training images than there are."""
    images, needed = int(report["splits"]["train"]["images"]), config.requirements
    if needed.subset is not None and needed.subset > images:
        raise ConfigUnfit(requirements.subset_too_large(needed.subset, images))
    used = needed.subset or images
    if needed.images > used:
        raise ConfigUnfit(requirements.too_few_images(needed.images, used))
    if needed.batch_size is not None and needed.batch_size > used:
        raise ConfigUnfit(requirements.batch_too_large(needed.batch_size, used))


def _check_channels(config: TrainingRun, channels: int) -> None:
    """Raise ConfigUnfit when the config asks for another number of channels than the dataset's images have."""
    for pointer, needed in config.requirements.channels.items():
        if needed != channels:
            raise ConfigUnfit(requirements.channels_differ(pointer, needed, channels))


def _batch_size(config: TrainingRun, report: Mapping[str, Any]) -> int:
    if config.batch_size != "auto":
        return config.batch_size
    most = config.largest_auto_batch
    if not config.learns_labels:  # whose budget may hold fewer images, and whose batches are cut to it
        most = min(most, config.subset or int(report["splits"]["train"]["images"]))
    return most - most % config.devices


def _image_size(config: TrainingRun, report: Mapping[str, Any], device: Device, start: Mapping[str, Any]) -> int:
    if config.image_size != "auto":
        return config.image_size
    if config.keeps_preprocessing:
        return int(start["preprocessing"]["image_size"])
    if config.backbone.name.startswith(_WHOLE_IMAGE_ONLY):
        return 224
    common = report["sizes"][0]
    side = min(int(common["width"]), int(common["height"]))
    return max(8, side) if side <= _SMALL else _SMALL if device.device == "cpu" else 224


def _phases(config: TrainingRun, device: Device) -> tuple[Phase, ...]:
    if config.phases != "auto":
        return config.phases
    full = known(config.image_size)
    # Runs with labels are short; torchvision's models have a minimum image size.
    if device.device != "cpu" or not config.progressive_sizes or is_torchvisions(config.backbone.name):
        return (Phase(until=1.0, image_size=full),)
    # Multiples of 4, so that a stride loses no row, and at least 8.
    ends = {min(full, max(8, round(full * share / 4) * 4)): until for share, until in _SMALLER}
    ends[full] = 1.0
    return tuple(Phase(until=until, image_size=size) for size, until in ends.items())


def _backbone(
    config: TrainingRun, report: Mapping[str, Any], image_size: int, device: Device, start: Mapping[str, Any]
) -> Backbone:
    """The backbone, where open from `start`, the starting model's; raises ConfigUnfit when the two do not fit."""
    # Only the larger of the two default networks has ImageNet weights.
    small = device.device == "cpu" and config.backbone.weights == "random"
    selective = config.backbone.selective_kernel is True
    google = selective or config.backbone.layout == "google"
    defaults = {
        "name": "resnet50" if selective else "resnet10" if small else "resnet18",
        "width": 0.5 if small else 1.0,
        "stem": "cifar" if image_size <= _SMALL else "imagenet",
        "channels": requirements.count_channels(report),
        "selective_kernel": False,
        "layout": "google" if google else "torchvision",
        "zero_init_residual": google or (config.recommendation.zero_init_residual and device.device != "cpu"),
        **start,
    }
    name = defaults["name"] if config.backbone.name == "auto" else config.backbone.name
    if is_torchvisions(name):
        defaults |= TORCHVISIONS_OWN
    open_fields = {field: value for field, value in defaults.items() if getattr(config.backbone, field) == "auto"}
    try:
        return _with(config.backbone, **open_fields)
    except ValidationError as error:
        detail = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigUnfit(f"The backbone does not go with the model to start from: {detail}.") from error


def _views(config: TrainingRun) -> Views | tuple[Views, ...]:
    sets = view_sets(config.views)
    return sets if isinstance(config.views, tuple) else sets[0]


def _optimizer(config: TrainingRun) -> Optimizer:
    optimizer, method = config.optimizer, config.recommendation
    if optimizer == "auto":
        optimizer = OPTIMIZERS[method.optimizers[config.device]]()
    lr = method.learning_rates[optimizer.name] if optimizer.lr == "auto" else optimizer.lr
    decays_all = optimizer.decay_norm_and_bias
    if decays_all == "auto":
        decays_all = (
            method.decays_all and optimizer.name != "muon"
        )  # whose decay is hundreds of times that of the papers
    return _with(optimizer, lr=lr, decay_norm_and_bias=decays_all)


def _evaluation(config: TrainingRun) -> OnlineAccuracy:
    most = config.evaluation.max_images
    return _with(config.evaluation, max_images=ONLINE_IMAGES[config.device] if most == "auto" else most)


def _is_compiled(config: TrainingRun, report: Mapping[str, Any]) -> bool:
    if config.compile != "auto":
        return config.compile
    if config.device == "cpu" or config.devices > 1 or config.chunk_size is not None:
        return False
    if is_torchvisions(config.backbone.name):  # Inductor adds some of their gradients in an order that differs
        return False
    if config.minutes is not None:
        return config.minutes >= _COMPILED_MINUTES
    images = config.subset or int(report["splits"]["train"]["images"])
    return (config.epochs or DEFAULT_EPOCHS) * max(1, images // known(config.batch_size)) >= _COMPILED_STEPS


def _dim(config: TrainingRun) -> int:
    """The backbone's number of features. Raises ConfigUnfit when it does not accept an image size of the run."""
    with backbones.MetaTensors():
        backbone = backbones.build(config.backbone).eval().to("meta")
    if not is_torchvisions(config.backbone.name):
        return backbone.dim  # a ResNet accepts any size, and a meta pass would load torch's compiler, for seconds
    with torch.device("meta"):  # shapes alone: nothing is allocated or computed
        for side in sorted({known(config.image_size), *(phase.image_size for phase in known(config.phases))}):
            try:
                backbone(torch.empty(2, config.backbone.input_channels, side, side))
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ConfigUnfit(f"{config.backbone.name} cannot take images of {side} pixels.") from error
    return backbone.dim


def _with(data: Data, **changes: Any) -> Data:
    """A copy with changed values, validated like any other config."""
    return type(data).model_validate({**{name: getattr(data, name) for name in type(data).model_fields}, **changes})
