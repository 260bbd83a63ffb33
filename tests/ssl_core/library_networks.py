"""Networks of timm and lightly, small and with random weights and batch norm statistics, for tests of importing."""

import warnings

import torch
from torch import Tensor, nn

import ssl_core.models.torchvision_ops  # noqa: F401 - must be imported before torchvision

with warnings.catch_warnings():  # of the libraries themselves
    warnings.simplefilter("ignore")
    import timm
    from lightly.models import ResNetGenerator

Source = tuple[nn.Module, dict[str, Tensor]]


def randomise(network: nn.Module) -> nn.Module:
    """Return the network in eval mode, its batch norms as after training."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def timm_resnet() -> Source:
    """Return timm's ResNet-18 as features, and its weights with the classifier."""
    network = randomise(timm.create_model("resnet18", num_classes=10))
    return nn.Sequential(_Features(network)), network.state_dict()


class _Features(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.forward_head(self.network.forward_features(images), pre_logits=True)


def lightly_resnet() -> Source:
    """Return lightly's narrow ResNet as penultimate features, and its weights with the last layer."""
    network = randomise(ResNetGenerator("resnet-9", width=0.125))
    weights = network.state_dict()
    network.linear = nn.Identity()
    return network, weights


def lightly_sequential() -> Source:
    """Return the same in the form of lightly's examples: a Sequential of its children."""
    children = list(randomise(ResNetGenerator("resnet-9", width=0.125)).children())[:-1]
    network = nn.Sequential(*children, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    return network, {f"backbone.{name}": value for name, value in network.state_dict().items()}
