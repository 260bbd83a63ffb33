"""Classification models of torchvision without their classification head."""

from typing import Any

from torch import Tensor, nn

from ssl_core.config.architectures import RESNETS, TORCHVISION


class TorchvisionModel(nn.Module):
    """A classification model of torchvision's without its classifier: images N×3×S×S -> N×dim, what it classified."""

    def __init__(self, name: str) -> None:
        super().__init__()
        model = import_torchvision_models().get_model(name, weights=None, **_EXTRA_ARGUMENTS.get(name, {}))
        self.model = model
        self.dim = _remove_classifier(model)
        self.block_dims: dict[str, int] = {}

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).flatten(1)

    def blocks(self, images: Tensor) -> dict[str, Tensor]:
        return {}  # such models agree on no names for their stages

    @property
    def body(self) -> nn.Module:
        """The module whose state dict has torchvision's names."""
        return self.model


# Auxiliary classifiers would answer with a tuple; the two models warn about their slow initialisation unless told.
_EXTRA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def build_torchvision_network(name: str) -> nn.Module:
    """Return torchvision's network without its classifier, of a backbone that it has too; with the ImageNet stem."""
    model = name.removeprefix("torchvision_")
    if model in TORCHVISION:
        return TorchvisionModel(model).body
    resnet = import_torchvision_models().resnet
    network = resnet.ResNet(resnet.BasicBlock, list(RESNETS[name].depths))
    network.fc = nn.Identity()
    return network


def import_torchvision_models() -> Any:
    """torchvision.models, imported when asked for: it takes seconds and 100 MB, and our networks need none of it."""
    import ssl_core.models.torchvision_ops  # noqa: PLC0415 - has to come before torchvision

    assert ssl_core.models.torchvision_ops
    import torchvision.models  # noqa: PLC0415

    return torchvision.models


def _remove_classifier(model: nn.Module) -> int:
    """Replace the layer that gives the 1,000 class scores by the identity; return how many features it took."""
    name, last = [
        (name, module)
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == 1000)
        or (isinstance(module, nn.Conv2d) and module.out_channels == 1000)
    ][-1]
    model.set_submodule(name, nn.Identity())
    return last.in_features if isinstance(last, nn.Linear) else last.in_channels
