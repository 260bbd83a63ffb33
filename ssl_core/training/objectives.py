"""Objectives: for each kind of run that trains a network, the network with its loss."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_core import methods
from ssl_core.config import Distill, Finetune, Pretrain, Supervised, TrainingRun
from ssl_core.methods import Method
from ssl_core.methods.classification import Classification, list_frozen_modules
from ssl_core.methods.distillation import Distillation
from ssl_core.methods.teacher import Teacher
from ssl_core.models import backbones
from ssl_core.models.heads import MLP
from ssl_core.serialization import saved_model
from ssl_core.training.training_data import TrainingData


def build_network(resolved: TrainingRun, data: TrainingData) -> Method:
    """Return the network of a resolved config, with random weights drawn from its seed."""
    torch.manual_seed(resolved.seed)
    return OBJECTIVES[resolved.kind](resolved, data)


def load_starting_weights(method: Method, resolved: TrainingRun, model: Path | None) -> None:
    """Load the starting weights of a new run into its backbone. Raises BadModel, WeightsUnavailable."""
    if model is not None and not resolved.model_is_teacher:
        saved_model.load_backbone(method.backbone, model)
    elif resolved.backbone.weights != "random":
        backbones.load_imagenet(method.backbone, resolved.backbone)


def _pretrain(resolved: Pretrain, data: TrainingData) -> Method:
    return methods.build(resolved)


def _supervised(resolved: Supervised, data: TrainingData) -> Method:
    assert data.budget is not None
    return Classification(backbones.build(resolved.backbone), None, len(data.budget.classes))


def _finetune(resolved: Finetune, data: TrainingData) -> Method:
    assert data.budget is not None
    assert data.model is not None
    backbone = backbones.build(resolved.backbone)
    head = _lower_head(saved_model.load(data.model).projector, resolved.ft_proj_selector)
    frozen = list_frozen_modules(backbone, resolved.fine_tune_after_block)
    method = Classification(backbone, head, len(data.budget.classes), frozen)
    nn.init.zeros_(method.classifier.weight)  # as in google-research/simclr
    return method


def _lower_head(projector: MLP | None, layers: int) -> MLP | None:
    """The first `layers` layers of the head."""
    assert projector is not None or layers == 0
    return projector.lower(layers) if projector is not None and layers > 0 else None


def _distill(resolved: Distill, data: TrainingData) -> Method:
    assert data.budget is not None
    assert data.model is not None
    teacher = Teacher.load(data.model, data.preprocessing, resolved.device, resolved.precision)
    return Distillation(resolved, backbones.build(resolved.backbone), len(data.budget.classes), teacher)


OBJECTIVES: dict[str, Callable[[Any, TrainingData], Method]] = {
    "pretrain": _pretrain,
    "supervised": _supervised,
    "finetune": _finetune,
    "distill": _distill,
}
