"""Exponential moving average (EMA) of a network's weights: momentum encoders and target networks."""

import copy
import math

import torch
from torch import Tensor, nn


def make_ema_copy(module: nn.Module) -> nn.Module:
    """Return a copy with the same weights, without gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_ema(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """Set the target's weights to momentum·target + (1 - momentum)·online; buffers, as batch norm's, are not copied."""
    targets: list[Tensor] = list(target.parameters())
    sources: list[Tensor] = list(online.parameters())
    torch._foreach_lerp_(targets, sources, 1 - momentum)


def compute_momentum(start: float, progress: float) -> float:
    """Return the momentum on a cosine schedule from `start` to 1; progress: the fraction of the run that is done.

    Source: BYOL (arXiv:2006.07733), section 3.3.
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
