"""Chunks: a backbone that takes a large batch in parts, so that the device holds the activations of one part alone.

Each part is computed again when its gradient is due. The loss sees the embeddings of the whole batch, so no negative is
lost, as it would be with accumulated gradients. Source: GradCache (Gao et al. 2021, arXiv:2101.06983). Batch norm sees
a part at a time.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def cache_gradients(backbone: nn.Module, size: int) -> None:
    """Make `backbone` take at most `size` images at a time while it trains; its parameters and names stay."""
    backbone.forward = _GradCache(backbone, backbone.forward, size)


class _GradCache:
    def __init__(self, backbone: nn.Module, whole: Callable[[Tensor], Tensor], size: int) -> None:
        self._backbone, self._whole, self._size = backbone, whole, size

    def __call__(self, images: Tensor) -> Tensor:
        """Return N×F of N×3×S×S."""
        if len(images) <= self._size or not torch.is_grad_enabled():
            return self._whole(images)
        parts = images.split(self._size)
        return torch.cat(
            [checkpoint(self._whole, part, use_reentrant=False, context_fn=self._contexts) for part in parts]
        )

    def _contexts(self) -> tuple[nullcontext[None], "_FrozenStatistics"]:
        return nullcontext(), _FrozenStatistics(self._backbone)


class _FrozenStatistics:
    """While a part is computed again, batch norm's running statistics have seen it already."""

    def __init__(self, network: nn.Module) -> None:
        norms = (m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d))
        self._norms = [(norm, norm.momentum) for norm in norms]
        self._counts: list[Tensor | None] = []

    def __enter__(self) -> None:
        counts = (norm.num_batches_tracked for norm, _ in self._norms)
        self._counts = [None if count is None else count.clone() for count in counts]
        for norm, _ in self._norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for (norm, momentum), count in zip(self._norms, self._counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
