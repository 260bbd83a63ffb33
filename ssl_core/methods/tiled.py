"""Tiled contrastive losses: the mean of logsumexp over the rows of a similarity matrix that is never whole in memory.

Tiles of rows are computed in the forward pass and again in the backward pass. A batch of 32,768 images has 2N = 65,536
embeddings: their matrix takes 17 GB, and automatic differentiation keeps five of its size.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_TILE_BYTES = 2**25
Mask = Callable[[slice], Tensor]  # R rows of M -> bool R×K: the similarities that are left out


def mean_logsumexp(q: Tensor, k: Tensor, *, temperature: float, mask: Mask | None = None) -> Tensor:
    """Return the mean over rows of logsumexp(q·kᵀ / temperature), with gradients of q, M×D, and k, K×D.

    Every row keeps at least one similarity.
    """
    mean: Tensor = _MeanLogSumExp.apply(q, k, temperature, mask)
    return mean


class _MeanLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, temperature: float, mask: Mask | None) -> Tensor:
        ctx.temperature, ctx.mask = temperature, mask
        sums = q.new_empty(len(q))  # log of the sum of exponentials
        for rows, tile in _tiles(q, k, temperature, mask):
            largest = tile.amax(1)
            sums[rows] = tile.sub_(largest[:, None]).exp_().sum(1).log_().add_(largest)
        ctx.save_for_backward(q, k, sums)
        return sums.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        q, k, sums = ctx.saved_tensors
        of_q, of_k = torch.empty_like(q), torch.zeros_like(k)
        for rows, tile in _tiles(q, k, ctx.temperature, ctx.mask):
            weights = tile.sub_(sums[rows, None]).exp_()  # softmax of the rows
            torch.mm(weights, k, out=of_q[rows])
            of_k.addmm_(weights.T, q[rows])
        scale = gradient / (len(q) * ctx.temperature)
        return of_q.mul_(scale), of_k.mul_(scale), None, None


def _tiles(q: Tensor, k: Tensor, temperature: float, mask: Mask | None) -> Iterator[tuple[slice, Tensor]]:
    """Yield tiles of rows, each with their masked similarities R×K, which may be changed until the next one.

    All are in one buffer: of tiles of their own, the C library's allocator kept gigabytes.
    """
    size = max(1, _TILE_BYTES // (len(k) * q.element_size()))
    buffer = q.new_empty(min(size, len(q)), len(k))
    for start in range(0, len(q), size):
        rows = slice(start, min(start + size, len(q)))
        tile = torch.mm(q[rows] / temperature, k.T, out=buffer[: rows.stop - start])
        if mask is not None:
            tile.masked_fill_(mask(rows), -torch.inf)
        yield rows, tile
