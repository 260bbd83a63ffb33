"""Optimizers of a config, their parameter groups, and the learning-rate schedule."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.config import LARS as LARSConfig
from ssl_core.config import AdamW, Schedule, TrainingRun
from ssl_core.config import Muon as MuonConfig
from ssl_core.config import Optimizer as OptimizerConfig
from ssl_core.config.fields import known
from ssl_core.methods.method import Method
from ssl_core.optim.lars import LARS
from ssl_core.optim.muon import Muon


def build(config: OptimizerConfig, method: Method, base_lr: float) -> torch.optim.Optimizer:
    """Return the optimizer of a resolved config over the method's parameters; `base_lr` is the scaled peak rate."""
    groups = make_parameter_groups(method, config, base_lr)
    if isinstance(config, LARSConfig):
        return LARS(
            groups,
            lr=base_lr,
            momentum=config.momentum,
            trust=config.trust,
            classic_momentum=config.classic_momentum,
            nesterov=config.nesterov,
        )
    if isinstance(config, MuonConfig):
        return Muon(groups, lr=base_lr, momentum=config.momentum, nesterov=config.nesterov, steps=config.steps)
    if isinstance(config, AdamW):
        return torch.optim.AdamW(groups, lr=base_lr, betas=config.betas, foreach=True)
    nesterov = config.nesterov and config.momentum > 0
    return torch.optim.SGD(groups, lr=base_lr, momentum=config.momentum, nesterov=nesterov, foreach=True)


def make_parameter_groups(method: Method, config: OptimizerConfig, base_lr: float) -> list[dict[str, Any]]:
    """Return up to four groups: weights, or norms and biases; at a scheduled or a constant rate.

    Norms and biases (every tensor of one dimension) are never adapted by LARS or Muon, and decayed only if the config
    sets it. For these two, modules that the method excludes from adaptation are treated alike, and both may have a rate
    of their own, `vector_lr`.
    """
    own = config.vector_lr if isinstance(config, LARSConfig | MuonConfig) else None
    vector_lr = base_lr if own is None else own * (base_lr / known(config.lr))
    constant, excluded = _parameter_ids(method.constant_lr()), _parameter_ids(method.excluded_from_adaptation())
    if not isinstance(config, LARSConfig | MuonConfig):
        excluded = set()
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for parameter in method.parameters():
        if parameter.requires_grad:
            small = parameter.ndim <= 1 or id(parameter) in excluded
            groups.setdefault((small, id(parameter) in constant), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if small and not config.decay_norm_and_bias else config.weight_decay,
            "adapt": not small,
            "constant_lr": fixed,
            "base_lr": vector_lr if small else base_lr,
        }
        for (small, fixed), parameters in groups.items()
    ]


def _parameter_ids(modules: Sequence[nn.Module]) -> set[int]:
    return {id(p) for module in modules for p in module.parameters()}


def compute_peak_lr(config: TrainingRun) -> float:
    """Return the peak learning rate of a resolved config: lr, lr·batch/256 or lr·√batch."""
    factors = {"none": 1.0, "linear": config.batch_size / 256, "sqrt": math.sqrt(config.batch_size)}
    return known(known(config.optimizer).lr) * factors[config.schedule.lr_scaling]


def compute_lr_factor(schedule: Schedule, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Return the share of the peak rate at `step`, from 0: linear warm-up to 1, then cosine towards 0 at `total_steps`.

    The warm-up starts at 1/warm-up steps rather than at 0, so that no step has a rate of 0. With `decay_steps` the
    cosine reaches 0 after that many steps and stays there.
    """
    warmup = min(round(known(schedule.warmup_epochs) * steps_per_epoch), total_steps)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.decay == "none":
        return 1.0
    end = max(warmup + 1, min(schedule.decay_steps or total_steps, total_steps))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (end - warmup))))


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its share of the peak; groups at a constant rate stay at the peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * (1.0 if group["constant_lr"] else factor)
