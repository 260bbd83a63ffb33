"""Collectives: gather, mean and broadcast over the processes of a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_decision_group: "dist.ProcessGroup | None" = None  # None: the default group


def select_local_rows(rows: Tensor) -> Tensor:
    """Return this process's rows of a global batch, whose size is a multiple of the number of processes."""
    return rows.chunk(world_size())[rank()]


def local_slice(count: int) -> slice:
    """Return the place of this process's rows among those that `gather` returns, `count` being the rows of each."""
    return slice(rank() * count, (rank() + 1) * count)


def broadcast_decision(decision: bool) -> bool:
    """Return rank 0's decision. It is sent between the hosts, so that no GPU is waited for."""
    if world_size() == 1:
        return decision
    value = torch.tensor([decision], dtype=torch.int32)
    dist.broadcast(value, 0, group=_decision_group)
    return bool(value.item())


@contextmanager
def decisions_within(timeout: timedelta) -> Iterator[None]:
    """Let `broadcast_decision` wait so long for rank 0 in the block, whatever the timeout of the other collectives."""
    global _decision_group
    _decision_group = dist.new_group(backend="gloo", timeout=timeout)
    try:
        yield
    finally:
        _decision_group = None


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(rows: Tensor) -> Tensor:
    """Return the rows N×D of all processes, W·N×D by rank, with gradient; every process has the same N."""
    return _Gather.apply(rows) if world_size() > 1 else rows


def gather_to_first(rows: Tensor, counts: Sequence[int]) -> Tensor | None:
    """Return the rows of all processes by rank, without gradient, in the first process, and None in the others.

    rows: N×D of this process; counts: the N of each process.
    """
    if world_size() == 1:
        return rows
    padded = rows.new_zeros(max(counts), *rows.shape[1:])  # of one size on all processes
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts] if rank() == 0 else None
    dist.gather(padded, parts)
    return None if parts is None else torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


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
