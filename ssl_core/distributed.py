"""Several processes as one: what a method needs of the others' batches. With one process everything is as it is.

Gathering sums the gradients of all processes on the way back. As each computes the loss of the joined batch, and their
gradients are then averaged, W processes give exactly the gradient of one with the joined batch.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(rows: Tensor) -> Tensor:
    """Return the rows N×D of all processes, W·N×D in the order of their ranks; every process has the same N."""
    return _Gather.apply(rows) if world_size() > 1 else rows


def mean(value: Tensor) -> Tensor:
    """Return the mean over the processes of a tensor without gradient."""
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world_size()


class _Gather(torch.autograd.Function):
    """`all_gather` whose backward sums over the processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]
