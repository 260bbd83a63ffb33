"""Selective-kernel convolution: two 3×3 convolutions, mixed by channel-wise attention.

Li et al. 2019 (arXiv:1903.06586) in the variant of SimCLRv2 (arXiv:2006.10029): both kernels are 3×3, computed as one
convolution of twice the width.
"""

from torch import Tensor, nn

from ssl_core.models.convolution import Conv

_SHARE, _LEAST = 1 / 16, 32  # of the outputs, and the minimum: the width of the attention's hidden layer


class SelectiveKernel(nn.Module):
    """N×C×H×W -> N×F×H'×W', norms and ReLU included; outputs are not negative."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = max(int(outputs * _SHARE), _LEAST)
        self.conv = Conv(inputs, 2 * outputs, 3, stride)
        self.bn = nn.BatchNorm2d(2 * outputs)
        self.reduce = Conv(outputs, middle, 1)
        self.reduce_bn = nn.BatchNorm2d(middle)
        self.expand = Conv(middle, 2 * outputs, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.relu(self.bn(self.conv(x))).chunk(2, dim=1)  # N×F×H'×W' each
        whole = (first + second).mean(dim=(2, 3), keepdim=True)  # N×F×1×1
        logits = self.expand(self.relu(self.reduce_bn(self.reduce(whole))))  # N×2F×1×1
        mixing = logits.unflatten(1, (2, -1)).softmax(dim=1)  # N×2×F×1×1
        return first * mixing[:, 0] + second * mixing[:, 1]
