"""Synchronised batch norm: statistics over the batches of all processes.

torch.nn.SyncBatchNorm runs on GPUs only; on a CPU the class below replaces it.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_core.distributed.collectives import gather


def convert(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with synchronised batch norms; its parameters and buffers stay the same objects."""
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return converted
    for module in network.modules():
        if type(module) in _SYNCHRONISED:
            module.__class__ = _SYNCHRONISED[type(module)]
    return network


class _SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        """Return N×C or N×C×H×W, each channel normalised over all processes; every process has the same N."""
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        values = x if x.dtype == torch.float64 else x.float()
        mean, variance = _over_processes(values.mean(dims), values.var(dims, correction=0))
        self._track(mean.detach(), variance.detach(), x.numel() // x.shape[1] * dist.get_world_size())
        out = (values - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            out = out * self.weight.view(shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        return out.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), self.momentum)


class _SyncBatchNorm1d(_SyncBatchNorm, nn.BatchNorm1d):
    pass


class _SyncBatchNorm2d(_SyncBatchNorm, nn.BatchNorm2d):
    pass


_SYNCHRONISED: dict[type[nn.Module], Any] = {nn.BatchNorm1d: _SyncBatchNorm1d, nn.BatchNorm2d: _SyncBatchNorm2d}


def _over_processes(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the batches of all processes, each C, from those of this process's batch."""
    means, variances = gather(torch.stack([mean, variance])).unflatten(0, (-1, 2)).unbind(1)  # each W×C
    total = means.mean(0)
    return total, (variances + (means - total).square()).mean(0)
