"""Synchronised batch norm: statistics over the batches of all processes.

torch.nn.SyncBatchNorm runs on GPUs only; on a CPU the class below replaces it.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


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
        mean = _mean_over_processes(values.mean(dims))
        centred = values - mean.view(shape)
        variance = _mean_over_processes(centred.pow(2).mean(dims))
        self._track(mean.detach(), variance.detach(), x.numel() // x.shape[1] * dist.get_world_size())
        out = centred * (variance + self.eps).rsqrt().view(shape)
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


def _mean_over_processes(value: Tensor) -> Tensor:
    return _AllReduceSum.apply(value) / dist.get_world_size()


class _AllReduceSum(torch.autograd.Function):
    """`all_reduce` whose backward sums the gradients over the processes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
