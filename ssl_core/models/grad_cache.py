"""Gradient caching: a backbone processes a large batch in chunks, with the activations of one chunk in memory.

Each chunk is recomputed in the backward pass. The loss takes the embeddings of the whole batch, so it has all
negatives, unlike with gradient accumulation. Source: GradCache (Gao et al. 2021, arXiv:2101.06983). Batch norm's
statistics are those of a chunk.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ssl_core.models.resnet import ResNet


def cache_gradients(backbone: nn.Module, size: int) -> None:
    """Make `backbone` process at most `size` images at a time in training; its parameters and their names are kept."""
    backbone.forward = _GradCache(backbone, backbone.forward, size)


class _GradCache:
    def __init__(self, backbone: nn.Module, forward: Callable[[Tensor], Tensor], size: int) -> None:
        self._backbone, self._forward, self._size = backbone, forward, size

    def __call__(self, images: Tensor) -> Tensor:
        """Return N×F of N×C×S×S."""
        if len(images) <= self._size or not torch.is_grad_enabled():
            return self._forward(images)
        settings: dict[str, Any] = {"use_reentrant": False, "context_fn": self._contexts}
        # Dropout has to be the same when it is recomputed; reading the state of a GPU's generator waits for the GPU.
        settings["preserve_rng_state"] = not isinstance(self._backbone, ResNet)
        return torch.cat([checkpoint(self._forward, chunk, **settings) for chunk in images.split(self._size)])

    def _contexts(self) -> tuple[nullcontext[None], "_FrozenStatistics"]:
        return nullcontext(), _FrozenStatistics(self._backbone)


class _FrozenStatistics:
    """Keeps batch norm's running statistics unchanged while a chunk is recomputed."""

    def __init__(self, network: nn.Module) -> None:
        norms = (m for m in network.modules() if isinstance(m, _BatchNorm))  # SyncBatchNorm too
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
