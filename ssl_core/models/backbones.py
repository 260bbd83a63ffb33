"""Backbones by name: ResNets of any width and torchvision's classification models, and their ImageNet weights.

The ResNets are those of `ssl_core.models.resnet`; `torchvision_<name>` is any torchvision classification model without
its classifier.
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
    """A mode that builds modules with their weights on the meta device, which takes no memory.

    Tensors that a constructor computes with stay real, as torchvision's RegNets need for their widths.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.normal_, Tensor.uniform_):  # nothing to fill; torch's meta kernels take seconds to load
            return args[0]
        if func in (torch.empty, torch.zeros, torch.ones) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


Backbone = ResNet | TorchvisionModel


def build(config: BackboneConfig) -> Backbone:
    """Return the backbone of a resolved config, with random weights from torch's global generator."""
    if config.name in RESNETS:
        return ResNet(
            config.name,
            width=float(config.width),
            stem=config.stem,
            channels=config.input_channels,
            zero_init_residual=bool(config.zero_init_residual),
            google=config.layout == "google",
            selective_kernel=config.selective_kernel is True,
        )
    return TorchvisionModel(config.name.removeprefix("torchvision_"), channels=config.input_channels)


def load_imagenet(backbone: Backbone, config: BackboneConfig) -> None:
    """Load torchvision's ImageNet weights of `config.weights`, downloaded once into torch's cache.

    With a CIFAR stem the first convolution has another shape and stays random. Raises WeightsUnavailable when the
    download fails, and ConfigUnfit when the weights lack a parameter.
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
