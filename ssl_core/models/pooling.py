"""Pooling layers with TensorFlow's SAME padding, as in google-research/simclr.

SAME pads at the end only when it pads by one: a window of 2, or of 3 at stride 2 on an even side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SameMaxPool(nn.Module):
    """3×3 max-pooling at stride 2, padded SAME: N×C×H×W -> N×C×⌈H/2⌉×⌈W/2⌉."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]  # SAME pads an odd side by one at either end
        return F.max_pool2d(x, 3, 2, padding=(height % 2, width % 2), ceil_mode=True)


class AveragePool(nn.Module):
    """2×2 average pooling before a shortcut's 1×1 convolution (ResNet-D, arXiv:1812.01187): -> N×C×⌈H/s⌉×⌈W/s⌉.

    Padded with zeros at stride 2; at stride 1 padding is excluded from the mean.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            # Padded explicitly: ONNX has no divisor_override, and its exporter ignores it silently.
            beyond = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
            return F.avg_pool2d(F.pad(x, beyond) if any(beyond) else x, 2)
        # The edges are repeated by slices, as the gradient of replication padding is not deterministic on CUDA.
        x = torch.cat([x, x[:, :, -1:]], 2)
        return F.avg_pool2d(torch.cat([x, x[:, :, :, -1:]], 3), 2, 1)  # padding excluded from the mean
