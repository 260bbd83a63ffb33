"""ResNets 10 to 152 (He et al. 2015, arXiv:1512.03385) of any width, in the torchvision or the google layout.

Stems for small and large images. At width 1 with the ImageNet stem the state dict is torchvision's without `fc`; in
the google layout the networks are those of google-research/simclr, optionally with selective kernels.
"""

from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor, nn

from ssl_core.config.architectures import RESNETS
from ssl_core.models.convolution import Conv
from ssl_core.models.pooling import AveragePool, SameMaxPool
from ssl_core.models.selective_kernel import SelectiveKernel

BLOCKS = ("block1", "block2", "block3", "block4")
Shortcut = Callable[[int, int, int], nn.Sequential | None]  # inputs, outputs, stride -> None for the identity
Block = Callable[[int, int, int, Shortcut], nn.Module]  # inputs, planes, stride, shortcut


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, inputs: int, planes: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = Conv(inputs, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = Conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1×1, 3×3 (which carries the stride, as in torchvision) and 1×1 convolutions around a shortcut.

    inner: the width of the 3×3 convolution in `planes`. selective: it is a selective kernel.
    """

    def __init__(
        self, inputs: int, planes: int, stride: int, shortcut: Shortcut, *, inner: int = 1, selective: bool = False
    ) -> None:
        super().__init__()
        width = inner * planes
        self.conv1 = Conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = SelectiveKernel(width, width, stride) if selective else Conv(width, width, 3, stride)
        # A selective kernel includes its norm and ReLU; the ReLU after it changes nothing.
        self.bn2 = nn.Identity() if selective else nn.BatchNorm2d(width)
        self.conv3 = Conv(width, 4 * planes, 1)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, 4 * planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Images N×C×S×S -> features N×dim, the spatial mean of the last stage.

    google: google-research/simclr's layout. Its max-pool pads SAME and every stage starts with a projection; with
    selective kernels it has ResNet-D's stem of three convolutions and average-pooled shortcuts (arXiv:1812.01187).
    """

    def __init__(
        self,
        name: str,
        *,
        width: float = 1.0,
        stem: str = "imagenet",
        channels: int = 3,
        zero_init_residual: bool = False,
        google: bool = False,
        selective_kernel: bool = False,
    ) -> None:
        super().__init__()
        shape = RESNETS[name]
        planes = [max(1, round(64 * width * 2**stage)) for stage in range(4)]
        self.conv1 = _build_stem(channels, planes[0], stem, deep=selective_kernel)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.Identity() if stem == "cifar_no_relu" else nn.ReLU(inplace=True)
        self.maxpool = _build_stem_pool(stem, same=google)
        bottleneck = partial(Bottleneck, inner=shape.inner, selective=selective_kernel)
        block: Block = BasicBlock if shape.block == "basic" else bottleneck
        shortcut = _pooled_projection if selective_kernel else _projection if google else _identity_or_projection
        dims = [width_ * shape.expansion for width_ in planes]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _build_stage(block, *sizes, shortcut)
            for sizes in zip([planes[0], *dims[:3]], dims, planes, shape.depths, (1, 2, 2, 2), strict=True)
        )
        self.dim = dims[-1]
        self.block_dims = dict(zip(BLOCKS, dims, strict=True))
        _initialise_weights(self, zero_init_residual)

    def forward(self, images: Tensor) -> Tensor:
        *_, last = self._stages(images)
        return last.mean(dim=(2, 3))

    def blocks(self, images: Tensor) -> dict[str, Tensor]:
        """Return every stage's spatial mean, N×C_stage, by the names of BLOCKS; the last is `forward`'s result."""
        return {name: x.mean(dim=(2, 3)) for name, x in zip(BLOCKS, self._stages(images), strict=True)}

    @property
    def body(self) -> nn.Module:
        """The module whose state dict has torchvision's names."""
        return self

    def _stages(self, images: Tensor) -> Iterator[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)  # N×C×H×W
            yield x


_SMALL_STEMS: dict[str, dict[str, int]] = {
    "cifar": {},
    "cifar_stride2": {"stride": 2},
    "cifar_padding2": {"padding": 2},
    "cifar_no_relu": {},
}


def _build_stem(channels: int, width: int, stem: str, *, deep: bool) -> nn.Module:
    if stem != "imagenet":
        return Conv(channels, width, 3, **_SMALL_STEMS[stem])
    if not deep:
        return Conv(channels, width, 7, 2)
    half = max(1, width // 2)
    first, second = (
        [Conv(inputs, half, 3, stride), nn.BatchNorm2d(half), nn.ReLU(inplace=True)]
        for inputs, stride in ((channels, 2), (half, 1))
    )
    return nn.Sequential(*first, *second, Conv(half, width, 3))


def _build_stem_pool(stem: str, *, same: bool) -> nn.Module:
    if stem != "imagenet":
        return nn.Identity()
    return SameMaxPool() if same else nn.MaxPool2d(3, 2, 1)


def _build_stage(
    block: Block, inputs: int, outputs: int, planes: int, depth: int, stride: int, shortcut: Shortcut
) -> nn.Sequential:
    first = block(inputs, planes, stride, shortcut)
    return nn.Sequential(first, *(block(outputs, planes, 1, _identity_or_projection) for _ in range(depth - 1)))


def _identity_or_projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    return None if stride == 1 and inputs == outputs else _projection(inputs, outputs, stride)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _pooled_projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(AveragePool(stride), *_projection(inputs, outputs, 1))


def _initialise_weights(network: ResNet, zero_init_residual: bool) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # a draw on meta imports torch's compiler
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
            nn.init.zeros_((module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight)
