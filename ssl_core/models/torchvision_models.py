"""Torchvision classification models without their classifier."""

from typing import Any

from torch import Tensor, nn

from ssl_core.config.architectures import RESNETS, TORCHVISION, find_first_weight
from ssl_core.config.views import RGB


class TorchvisionModel(nn.Module):
    """A torchvision classification model without its classifier: images N×C×S×S -> penultimate features N×dim."""

    def __init__(self, name: str, *, channels: int = RGB) -> None:
        super().__init__()
        model = import_torchvision_models().get_model(name, weights=None, **_EXTRA_ARGUMENTS.get(name, {}))
        replace_first_convolution(model, name, channels)
        self.model = model
        self.dim = _remove_classifier(model)
        self.block_dims: dict[str, int] = {}

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).flatten(1)

    def blocks(self, images: Tensor) -> dict[str, Tensor]:
        return {}  # torchvision has no common names for stages

    @property
    def body(self) -> nn.Module:
        """The module whose state dict has torchvision's names."""
        return self.model


# Auxiliary classifiers would return a tuple; without `init_weights` the two models warn about slow initialisation.
_EXTRA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def build_torchvision_network(name: str, *, channels: int = RGB) -> nn.Module:
    """Return torchvision's network of a backbone's name, without its classifier and with the ImageNet stem."""
    model = name.removeprefix("torchvision_")
    if model in TORCHVISION:
        return TorchvisionModel(model, channels=channels).body
    resnet = import_torchvision_models().resnet
    network = resnet.ResNet(resnet.BasicBlock, list(RESNETS[name].depths))
    network.fc = nn.Identity()
    replace_first_convolution(network, name, channels)
    return network


def replace_first_convolution(model: nn.Module, name: str, channels: int) -> None:
    """Replace the first convolution of a torchvision network by one of that many channels, with PyTorch's initial
    weights; that of RGB is kept.
    """
    if channels == RGB:
        return
    place = find_first_weight(name).removesuffix(".weight")
    first: Any = model.get_submodule(place)
    geometry = first.kernel_size, first.stride, first.padding
    model.set_submodule(place, nn.Conv2d(channels, first.out_channels, *geometry, bias=first.bias is not None))


def import_torchvision_models() -> Any:
    """Return torchvision.models, imported on first use: it takes seconds and 100 MB, and ResNets do not need it."""
    import ssl_core.models.torchvision_ops  # noqa: PLC0415 - must be imported before torchvision

    assert ssl_core.models.torchvision_ops
    import torchvision.models  # noqa: PLC0415

    return torchvision.models


def _remove_classifier(model: nn.Module) -> int:
    """Replace the layer of the 1,000 class scores by the identity; return its number of input features."""
    name, last = [
        (name, module)
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == 1000)
        or (isinstance(module, nn.Conv2d) and module.out_channels == 1000)
    ][-1]
    model.set_submodule(name, nn.Identity())
    return last.in_features if isinstance(last, nn.Linear) else last.in_channels
