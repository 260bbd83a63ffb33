"""Resolution: every `"auto"` of a config resolved from the data, the machine and the method.

The result is a valid config that resolves to itself, so a run that is started again with it is the same run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from ssl_core.config import (
    SGD,
    TORCHVISIONS_OWN,
    Backbone,
    Distill,
    Finetune,
    KnnEval,
    Labelled,
    LinearEval,
    Muon,
    Optimizer,
    Phase,
    Pretrain,
    Project,
    TrainingRun,
    Views,
    is_torchvisions,
    view_sets,
)
from ssl_core.config.methods import MethodConfig
from ssl_core.device import Machine
from ssl_core.errors import ConfigUnfit
from ssl_core.models import backbones
from ssl_core.serialization import saved_model

Run = TypeVar("Run", bound=TrainingRun | KnnEval | LinearEval | Project)
Fit = TypeVar("Fit", bound=TrainingRun)
Data = TypeVar("Data", bound=BaseModel)

DEFAULT_EPOCHS = 100
ONLINE_EVALUATIONS = 8  # in a run, at most
ONLINE_IMAGES = {"cpu": 2_500, "cuda": 5_000}  # of each split
WARMUP_SHARE = 0.05
_SMALLER = ((0.5, 0.5), (0.625, 0.8), (0.75, 0.95))  # shares of the full size, each until that share of the run
_SMALL = 64  # pixels: up to here images are trained at their own size, with a CIFAR stem
_WHOLE_IMAGE_ONLY = ("torchvision_vit", "torchvision_maxvit")  # models that are built for one image size, 224


@dataclass(frozen=True)
class Length:
    """Of a run, and how many online evaluations it has where the config leaves that open."""

    epochs: int
    evaluations: int = ONLINE_EVALUATIONS


def resolve(
    config: Fit,
    report: Mapping[str, Any],
    machine: Machine,
    *,
    start: Mapping[str, Any] | None = None,
    length_in: Callable[[Fit], Length] | None = None,
) -> Fit:
    """Return the config with nothing left at "auto" and its length in epochs.

    report: the dataset's `dataset.json`. start: the card of the model to start from; its network is taken where the
    config leaves it open. length_in: what a config, resolved but for its length, makes in its `minutes`.
    Raises ConfigUnfit when the config cannot be run on this data.
    """
    images = _training_images(config, report)
    if isinstance(config, Pretrain) and images < config.batch_size:
        raise ConfigUnfit(f"batch_size {config.batch_size} is larger than the {images} training images.")
    start = _start(config, start)
    config = resolve_device(config, machine)
    image_size = _image_size(config, report, machine, start)
    config = _with(config, image_size=image_size)
    config = _with(config, phases=_phases(config, machine))
    config = _with(config, backbone=_backbone(config, image_size, machine, start.get("backbone", {})))
    dim = _dim(config)
    if isinstance(config, Pretrain):
        config = _with(config, method=config.method.resolved(dim, config.backbone.stem))
    config = _with(config, optimizer=_optimizer(config), views=_views(config))
    if config.minutes is None:
        return _with_length(config, Length(config.epochs or DEFAULT_EPOCHS))
    if length_in is None:
        raise ConfigUnfit("A length in minutes needs the machine's speed to become a number of epochs.")
    return _with_length(config, length_in(_with_length(config, Length(1))))


def resolve_device(config: Run, machine: Machine) -> Run:
    """Return a config with its device and its precision resolved."""
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if machine.gains_from_bf16 else "fp32"
    return _with(config, device=machine.device, precision=precision)


def _start(config: TrainingRun, model: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The card of the model that the network starts from, or nothing. Raises ConfigUnfit when it does not do."""
    if isinstance(config, Distill):
        return {}  # whose model is the teacher
    if isinstance(config, Finetune):
        if model is None:
            raise ConfigUnfit("Fine-tuning needs a model to start from.")
        layers = saved_model.head_depth(model)
        if config.ft_proj_selector > layers:
            raise ConfigUnfit(f"ft_proj_selector is {config.ft_proj_selector}; the model's head has {layers} layers.")
    return model or {}


def _training_images(config: TrainingRun, report: Mapping[str, Any]) -> int:
    images = int(report["splits"]["train"]["images"])
    if config.subset is not None and config.subset > images:
        raise ConfigUnfit(f"subset {config.subset} is larger than the {images} training images.")
    return config.subset or images


def _image_size(config: TrainingRun, report: Mapping[str, Any], machine: Machine, start: Mapping[str, Any]) -> int:
    if config.image_size != "auto":
        return config.image_size
    if isinstance(config, Finetune):
        return int(start["preprocessing"]["image_size"])
    if config.backbone.name.startswith(_WHOLE_IMAGE_ONLY):
        return 224
    common = report["sizes"][0]
    side = min(int(common["width"]), int(common["height"]))
    return max(8, side) if side <= _SMALL else _SMALL if machine.device == "cpu" else 224


def _phases(config: TrainingRun, machine: Machine) -> tuple[Phase, ...]:
    if config.phases != "auto":
        return config.phases
    assert config.image_size != "auto"
    full = config.image_size
    # With labels a run is short; torchvision's models have a smallest image of their own.
    if machine.device != "cpu" or isinstance(config, Labelled) or is_torchvisions(config.backbone.name):
        return (Phase(until=1.0, image_size=full),)
    # In whole multiples of 4, so that a stride does not lose a row, and never below 8.
    ends = {min(full, max(8, round(full * share / 4) * 4)): until for share, until in _SMALLER}
    ends[full] = 1.0
    return tuple(Phase(until=until, image_size=size) for size, until in ends.items())


def _backbone(config: TrainingRun, image_size: int, machine: Machine, start: Mapping[str, Any]) -> Backbone:
    """The network of `start` where there is one and the config does not name another."""
    # Of these two networks only the larger has ImageNet weights.
    small = machine.device == "cpu" and config.backbone.weights == "random"
    selective = config.backbone.selective_kernel is True
    google = selective or config.backbone.layout == "google"
    defaults = {
        "name": "resnet50" if selective else "resnet10" if small else "resnet18",
        "width": 0.5 if small else 1.0,
        "stem": "cifar" if image_size <= _SMALL else "imagenet",
        "selective_kernel": False,
        "layout": "google" if google else "torchvision",
        "zero_init_residual": google or (_advice(config).zero_init_residual and machine.device != "cpu"),
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


def _advice(config: TrainingRun) -> MethodConfig | Labelled:
    """What says the best of each optimizer and network: the method, or a kind with labels itself."""
    if isinstance(config, Pretrain):
        return config.method
    assert isinstance(config, Labelled)
    return config


def _views(config: TrainingRun) -> Views | tuple[Views, ...]:
    sets = view_sets(config.views)
    return sets if isinstance(config.views, tuple) else sets[0]


def _optimizer(config: TrainingRun) -> Optimizer:
    optimizer, method = config.optimizer, _advice(config)
    if optimizer == "auto":
        optimizer = Muon() if method.cpu_optimizer == "muon" and config.device == "cpu" else SGD()
    lr = method.learning_rates[optimizer.name] if optimizer.lr == "auto" else optimizer.lr
    decays_all = optimizer.decay_norm_and_bias
    if decays_all == "auto":
        decays_all = method.decays_all and optimizer.name != "muon"  # whose decay is hundreds of times a paper's
    return _with(optimizer, lr=lr, decay_norm_and_bias=decays_all)


def _with_length(config: Fit, length: Length) -> Fit:
    epochs = length.epochs
    warmup, every, most = config.schedule.warmup_epochs, config.evaluation.every_epochs, config.evaluation.max_images
    schedule = _with(config.schedule, warmup_epochs=WARMUP_SHARE * epochs if warmup == "auto" else warmup)
    every = math.ceil(epochs / length.evaluations) if every == "auto" else every
    most = ONLINE_IMAGES[config.device] if most == "auto" else most
    evaluation = _with(config.evaluation, every_epochs=every, max_images=most)
    return _with(config, epochs=epochs, minutes=None, schedule=schedule, evaluation=evaluation)


def _dim(config: TrainingRun) -> int:
    """The backbone's number of features, once it has taken images of every size of the run. Raises ConfigUnfit."""
    assert config.phases != "auto"
    assert config.image_size != "auto"
    with backbones.ShapesAlone():
        backbone = backbones.build(config.backbone).eval().to("meta")
    if config.backbone.layout == "torchvision" and not is_torchvisions(config.backbone.name):
        return backbone.dim  # ours take every size, and to pass one here would load torch's compiler, for seconds
    with torch.device("meta"):  # shapes alone: nothing is allocated or computed
        for side in sorted({config.image_size, *(phase.image_size for phase in config.phases)}):
            try:
                backbone(torch.empty(2, 3, side, side))
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ConfigUnfit(f"{config.backbone.name} cannot take images of {side} pixels.") from error
    return backbone.dim


def _with(data: Data, **changes: Any) -> Data:
    """A copy with other values, checked like any other config."""
    return type(data).model_validate({**{name: getattr(data, name) for name in type(data).model_fields}, **changes})
