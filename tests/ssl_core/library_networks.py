"""Foreign networks: small ones of timm's and lightly's, with weights that nobody would take for a fresh start."""

import warnings

import torch
from torch import Tensor, nn

import ssl_core.models.torchvision_ops  # noqa: F401 - has to come before torchvision

with warnings.catch_warnings():  # about things of theirs that are none of ours
    warnings.simplefilter("ignore")
    import timm
    from lightly.models import ResNetGenerator

Source = tuple[nn.Module, dict[str, Tensor]]


def randomised(network: nn.Module) -> nn.Module:
    """The network in eval mode, its batch norms as after training."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def timm_resnet() -> Source:
    """timm's ResNet-18 gives features, and is saved with its classifier."""
    network = randomised(timm.create_model("resnet18", num_classes=10))
    return nn.Sequential(_Features(network)), network.state_dict()


class _Features(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.forward_head(self.network.forward_features(images), pre_logits=True)


def lightly_resnet() -> Source:
    """lightly's own narrow ResNet, whole; its features are what its last layer is given."""
    network = randomised(ResNetGenerator("resnet-9", width=0.125))
    weights = network.state_dict()
    network.linear = nn.Identity()
    return network, weights


def lightly_sequential() -> Source:
    """The same as lightly's examples use it: its children, numbered."""
    children = list(randomised(ResNetGenerator("resnet-9", width=0.125)).children())[:-1]
    network = nn.Sequential(*children, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    return network, {f"backbone.{name}": value for name, value in network.state_dict().items()}
