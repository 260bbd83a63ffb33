"""Backbones: image batch -> features.

ResNets 10 to 152 (He et al. 2015, arXiv:1512.03385) of any width, with stems for small and large images; at width 1
with the ImageNet stem their state dict is torchvision's, less the classifier `fc`. In google's layout they are the
networks of google-research/simclr instead, which may have selective kernels. Any torchvision classification model
besides, as `torchvision_<name>`, with its classifier taken off.
"""

from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ssl_core.config import Backbone as BackboneConfig
from ssl_core.config.architectures import RESNETS
from ssl_core.errors import ConfigUnfit, WeightsUnavailable
from ssl_core.models.resnet import ResNet
from ssl_core.models.torchvision_models import TorchvisionModel, import_torchvision_models


class MetaTensors(TorchFunctionMode):
    """While this mode is on, modules are built with shapes and no memory: their weights are on the meta device.

    What a network computes while it is built stays real, as the widths of torchvision's RegNets have to.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.normal_, Tensor.uniform_):  # there is nothing to fill, and torch takes seconds to say so
            return args[0]
        if func in (torch.empty, torch.zeros, torch.ones) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


Backbone = ResNet | TorchvisionModel


def build(config: BackboneConfig) -> Backbone:
    """Return the backbone that a resolved config describes, with random weights from torch's global generator."""
    if config.name in RESNETS:
        return ResNet(
            config.name,
            width=float(config.width),
            stem=config.stem,
            zero_init_residual=bool(config.zero_init_residual),
            google=config.layout == "google",
            selective_kernel=config.selective_kernel is True,
        )
    return TorchvisionModel(config.name.removeprefix("torchvision_"))


def load_imagenet(backbone: Backbone, config: BackboneConfig) -> None:
    """Give the backbone those of torchvision's ImageNet weights that are asked for, downloaded once and kept in torch's
    cache.

    With a CIFAR stem the first convolution has another shape and keeps its random start. Raises WeightsUnavailable when
    they cannot be fetched.
    """
    name = config.name.removeprefix("torchvision_")
    try:
        known = import_torchvision_models().get_model_weights(name)
        asked = known.DEFAULT if config.weights == "imagenet" else known["IMAGENET1K_V1"]
        weights = asked.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsUnavailable(f"The ImageNet weights of {name} could not be fetched: {error}") from error
    own = backbone.body.state_dict()
    fitting = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
    if missing := own.keys() - fitting.keys() - {"conv1.weight"}:
        raise ConfigUnfit(f"The ImageNet weights of {name} lack {sorted(missing)[0]}.")
    backbone.body.load_state_dict(own | fitting)
