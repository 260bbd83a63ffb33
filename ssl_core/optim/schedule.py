"""The learning-rate schedule: the peak rate of a config, and the factor of it at each step."""

import math

import torch

from ssl_core.config import Schedule, TrainingRun
from ssl_core.config.fields import known


def compute_peak_lr(config: TrainingRun) -> float:
    """Return the peak learning rate of a resolved config: lr, lr·batch/256 or lr·√batch."""
    batch_size = known(config.batch_size)
    factors = {"none": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}
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
