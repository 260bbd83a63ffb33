"""Loading code for torchvision and timm: Python lines that load a backbone's weights into their networks.

Reads a card's `backbone` and imports neither library. For a ResNet with a stem for small images, two modules of the
other network are replaced; other widths and the google layout have no counterpart in either library.
"""

from collections.abc import Mapping
from typing import Any

from ssl_core.config import is_torchvisions
from ssl_core.config.architectures import RESNETS, TORCHVISION, find_first_weight
from ssl_core.config.views import RGB

# Torchvision models whose module names are the same in timm; a test compares their outputs.
SAME_IN_TIMM = frozenset(
    {
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
        *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
        *("densenet121", "densenet161", "densenet169", "densenet201", "inception_v3"),
    }
)
# Stride and padding of the 3×3 convolution that replaces torchvision's 7×7 convolution and max-pool.
SMALL_STEMS = {"cifar": (1, 1), "cifar_stride2": (2, 1), "cifar_padding2": (1, 2)}


def is_plain_resnet(backbone: Mapping[str, Any]) -> bool:
    """Return whether the backbone is a ResNet that torchvision's class builds too, except for the stem."""
    plain_layout = backbone.get("layout", "torchvision") == "torchvision" and not backbone.get("selective_kernel")
    plain_stem = backbone.get("stem") in ("imagenet", *SMALL_STEMS)
    return backbone["name"] in RESNETS and backbone["width"] == 1 and plain_layout and plain_stem


def get_timm_arguments(backbone: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of `timm.create_model` for the weights' network; None where timm has none."""
    name, channels = backbone["name"], _count_channels(backbone)
    common = {"num_classes": 0} | ({} if channels == RGB else {"in_chans": channels})
    if is_torchvisions(name):
        model = name.removeprefix("torchvision_")
        return {"model_name": model, **common} if model in SAME_IN_TIMM else None
    if not is_plain_resnet(backbone):
        return None
    if name not in TORCHVISION:  # nor in timm, which builds it from its depths
        return {"model_name": "resnet18", **common, "layers": list(RESNETS[name].depths)}
    return {"model_name": name, **common}


def write_timm_code(backbone: Mapping[str, Any], file: str) -> str | None:
    """Return the code that loads `file` into timm's `network`; None where timm has no such network."""
    arguments = get_timm_arguments(backbone)
    if arguments is None:
        return None
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return _write_code("timm", [f"network = timm.create_model({given})", *_write_stem_code(backbone)], file)


def write_torchvision_code(backbone: Mapping[str, Any], file: str) -> str | None:
    """Return the code that loads `file` into torchvision's `network`; None where torchvision has no such network."""
    name = backbone["name"]
    if is_torchvisions(name):
        model = name.removeprefix("torchvision_")
        lines = [f'network = torchvision.models.get_model("{model}")', *_write_first_code(model, backbone)]
        return _write_code("torchvision", lines, file, "strict=False", "  # the classifier stays as it was")
    if not is_plain_resnet(backbone):
        return None
    made = f"network = torchvision.models.{name}()"
    if name not in TORCHVISION:
        resnet = "torchvision.models.resnet"
        made = f"network = {resnet}.ResNet({resnet}.BasicBlock, {list(RESNETS[name].depths)})"
    stem = _write_stem_code(backbone) or _write_first_code(name, backbone)
    return _write_code("torchvision", [made, "network.fc = torch.nn.Identity()", *stem], file)


def _count_channels(backbone: Mapping[str, Any]) -> int:
    return int(backbone.get("channels", RGB))


def _write_first_code(model: str, backbone: Mapping[str, Any]) -> list[str]:
    """The lines that give torchvision's network a first convolution of other channels than RGB."""
    if (channels := _count_channels(backbone)) == RGB:
        return []
    place = find_first_weight(model).removesuffix(".weight")
    arguments = f"{channels}, first.out_channels, first.kernel_size, first.stride, first.padding"
    return [
        f'first = network.get_submodule("{place}")',
        f"first = torch.nn.Conv2d({arguments}, bias=first.bias is not None)",
        f'network.set_submodule("{place}", first)',
    ]


def _write_stem_code(backbone: Mapping[str, Any]) -> list[str]:
    if backbone.get("stem") not in SMALL_STEMS:
        return []
    (stride, padding), channels = SMALL_STEMS[backbone["stem"]], _count_channels(backbone)
    return [
        f"network.conv1 = torch.nn.Conv2d({channels}, 64, 3, stride={stride}, padding={padding}, bias=False)",
        "network.maxpool = torch.nn.Identity()",
    ]


def _write_code(library: str, made: list[str], file: str, option: str = "", remark: str = "") -> str:
    imports = ["import torch"] * any("torch.nn" in line for line in made) + [f"import {library}"]
    loaded = ", ".join(part for part in (f'load_file("{file}")', option) if part)
    last = [f"network.load_state_dict({loaded}){remark}", "network.eval()"]
    return "\n".join([*imports, "from safetensors.torch import load_file", "", *made, *last])
