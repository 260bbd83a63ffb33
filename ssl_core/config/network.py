"""The network: the encoder's architecture and its starting weights."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ssl_core.config.architectures import LATER_WEIGHTS, RESNETS, TORCHVISION
from ssl_core.config.fields import Auto, Closed
from ssl_core.config.reading import MAX_CHANNELS
from ssl_core.config.views import RGB

BACKBONES: dict[str, str] = {name: shape.description for name, shape in RESNETS.items()} | {
    f"torchvision_{name}": f"{name} of torchvision, without its classifier." for name in TORCHVISION
}
# The values of these fields for every torchvision model, which cannot be changed.
TORCHVISIONS_OWN = {
    "width": 1.0,
    "stem": "imagenet",
    "selective_kernel": False,
    "layout": "torchvision",
    "zero_init_residual": False,
}


def is_torchvisions(backbone: str) -> bool:
    """Return whether the name of a backbone is that of a torchvision model."""
    return backbone.startswith("torchvision_")


def known_backbone(name: str) -> str:
    """Return the name, which is "auto" or a key of BACKBONES. Raises ValueError."""
    if name != "auto" and name not in BACKBONES:
        close = difflib.get_close_matches(name, BACKBONES, n=1)
        raise ValueError(f"there is no backbone `{name}`" + (f"; did you mean `{close[0]}`?" if close else ""))
    return name


Stem = Literal["auto", "cifar", "cifar_stride2", "cifar_padding2", "cifar_no_relu", "imagenet"]


class Backbone(Closed):
    """The encoder: image batch -> features."""

    name: str = Field(
        "auto",
        max_length=64,
        pattern=r"^[a-z0-9_]+$",
        description="`resnet10` … `resnet152`, `wide_resnet50_2`, or any torchvision classification model as"
        " `torchvision_<name>`. auto: resnet10 on a CPU, resnet18 on a GPU, resnet50 for selective kernels.",
    )
    width: Annotated[float, Field(gt=0, le=8)] | Auto = Field(
        "auto",
        description="Width multiplier; auto: 0.5 on a CPU, 1 on a GPU and for ImageNet weights. Not for torchvision's"
        " models.",
    )
    stem: Stem = Field(
        "auto",
        description="cifar: 3×3 stride 1, no max-pool; cifar_padding2 and cifar_no_relu are solo-learn's and lightly's,"
        " for imported weights. auto: cifar up to 64 px, imagenet above. Not for torchvision's models.",
    )
    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] | Auto = Field(
        "auto", description="Channels of an image, for any network; auto: as many as the dataset's images have."
    )
    selective_kernel: bool | Auto = Field(
        "auto",
        description="SimCLRv2's selective kernels, with ResNet-D's stem and shortcuts; from resnet50 up. auto: no.",
    )
    layout: Literal["auto", "torchvision", "google"] = Field(
        "auto",
        description="Padding, pooling and shortcuts of torchvision or of google-research/simclr; selective kernels need"
        " the latter. auto: google with these, else torchvision.",
    )
    weights: Literal["random", "imagenet", "imagenet_v1"] = Field(
        "random",
        description="Starting weights when the job names no model; imagenet: torchvision's newest, for all but"
        " resnet10, of RGB images; imagenet_v1: torchvision's first, used in papers before 2022.",
    )
    zero_init_residual: bool | Auto = Field(
        "auto",
        description="Start each residual block as the identity; auto: in google's layout yes, on a GPU as the method's"
        " authors do, on a CPU, where runs are short, no. Not for torchvision's models.",
    )

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        return known_backbone(name)

    @field_validator("width", "stem", "selective_kernel", "layout", "zero_init_residual")
    @classmethod
    def _can_be_chosen(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        name, own = info.data.get("name", "auto"), TORCHVISIONS_OWN[info.field_name]
        if is_torchvisions(name) and value not in ("auto", own):
            raise ValueError(f"{name} is used unchanged; leave `{info.field_name}` out")
        return value

    @field_validator("selective_kernel")
    @classmethod
    def _has_room(cls, selective: bool | Auto, info: ValidationInfo) -> bool | Auto:
        name = info.data.get("name", "auto")
        if selective is True and name != "auto" and RESNETS[name].block != "bottleneck":
            raise ValueError(f"{name} has no bottleneck blocks; resnet50 is the smallest with selective kernels")
        return selective

    @field_validator("layout")
    @classmethod
    def _has_selective_kernels(cls, layout: str, info: ValidationInfo) -> str:
        if layout == "torchvision" and info.data.get("selective_kernel") is True:
            raise ValueError("selective kernels need layout google")
        return layout

    @field_validator("weights")
    @classmethod
    def _exist(cls, weights: str, info: ValidationInfo) -> str:
        name, width = info.data.get("name", "auto"), info.data.get("width", "auto")
        if weights == "random":
            return weights
        if weights == "imagenet_v1" and name.removeprefix("torchvision_") in LATER_WEIGHTS:
            raise ValueError(f"torchvision has no IMAGENET1K_V1 of {name}; use `imagenet`")
        if name in RESNETS.keys() - {*TORCHVISION}:
            raise ValueError(f"there are no ImageNet weights for {name}; resnet18 is the smallest ResNet that has them")
        if width not in ("auto", 1):
            raise ValueError(f"there are no ImageNet weights for width {width}, only for width 1")
        if info.data.get("selective_kernel") is True or info.data.get("layout") == "google":
            raise ValueError("ImageNet weights need torchvision's layout")
        if (channels := info.data.get("channels", "auto")) not in ("auto", RGB):
            raise ValueError(f"ImageNet weights are of RGB images, not of {channels} channels")
        return weights

    @property
    def input_channels(self) -> int:
        """Channels of an image; 3 where they are open, as in resolved configs of earlier versions."""
        return RGB if self.channels == "auto" else self.channels
