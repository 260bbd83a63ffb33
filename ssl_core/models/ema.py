"""Slow copies: networks that follow another by a moving average, and get no gradient."""

import copy
import math

import torch
from torch import Tensor, nn


def make_ema_copy(module: nn.Module) -> nn.Module:
    """Return a copy with the same weights, which no gradient reaches."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_ema(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Move the weights of `slow` to momentum·slow + (1 - momentum)·fast. Buffers, as batch norm's, are its own."""
    targets: list[Tensor] = list(slow.parameters())
    sources: list[Tensor] = list(fast.parameters())
    torch._foreach_lerp_(targets, sources, 1 - momentum)


def compute_momentum(start: float, progress: float) -> float:
    """Return a momentum that rises from `start` to 1 by a cosine; progress: the share of the run that is done.

    Source: BYOL (arXiv:2006.07733), section 3.3.
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
