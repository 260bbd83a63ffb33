"""Architectures that a config's backbone may name, by name, without torch; a test compares torchvision's."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ResNetShape:
    """Of a ResNet: its block, how many of it in each of the four stages, a sentence, and how many times wider the 3×3
    convolutions of its bottlenecks are.
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, int, int, int]
    description: str
    inner: int = 1

    @property
    def expansion(self) -> int:
        """How many times a block's `planes` it gives out."""
        return 4 if self.block == "bottleneck" else 1


RESNETS: dict[str, ResNetShape] = {
    "resnet10": ResNetShape("basic", (1, 1, 1, 1), "ResNet with one basic block a stage."),
    "resnet18": ResNetShape("basic", (2, 2, 2, 2), "ResNet-18 (arXiv:1512.03385)."),
    "resnet34": ResNetShape("basic", (3, 4, 6, 3), "ResNet-34."),
    "resnet50": ResNetShape("bottleneck", (3, 4, 6, 3), "ResNet-50, with bottleneck blocks."),
    "resnet101": ResNetShape("bottleneck", (3, 4, 23, 3), "ResNet-101."),
    "resnet152": ResNetShape("bottleneck", (3, 8, 36, 3), "ResNet-152."),
    "wide_resnet50_2": ResNetShape(
        "bottleneck", (3, 4, 6, 3), "ResNet-50 with 3×3 convolutions of twice the width.", inner=2
    ),
}
# fmt: off
TORCHVISION = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121",
    "densenet161", "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2",
    "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf",
    "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf", "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf",
    "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf", "resnet101",
    "resnet152", "resnet18", "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0",
    "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t", "vgg11", "vgg11_bn",
    "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14",
    "vit_l_16", "vit_l_32", "wide_resnet101_2", "wide_resnet50_2",
)
# fmt: on
LATER_WEIGHTS = ("regnet_y_128gf", "vit_h_14")  # of TORCHVISION, those without an IMAGENET1K_V1
# The first weight of each family of torchvision's, by what their names begin with.
TORCHVISIONS_FIRST: dict[str, str] = {
    "alexnet": "features.0.weight",
    "convnext": "features.0.0.weight",
    "densenet": "features.conv0.weight",
    "efficientnet": "features.0.0.weight",
    "googlenet": "conv1.conv.weight",
    "inception": "Conv2d_1a_3x3.conv.weight",
    "maxvit": "stem.0.0.weight",
    "mnasnet": "layers.0.weight",
    "mobilenet": "features.0.0.weight",
    "regnet": "stem.0.weight",
    "resne": "conv1.weight",
    "shufflenet": "conv1.0.weight",
    "squeezenet": "features.0.weight",
    "swin": "features.0.0.weight",
    "vgg": "features.0.weight",
    "vit": "conv_proj.weight",
    "wide_resnet": "conv1.weight",
}


def find_first_weight(model: str) -> str:
    """Return the name of the first weight of a model of TORCHVISION or RESNETS."""
    return next(first for family, first in TORCHVISIONS_FIRST.items() if model.startswith(family))
