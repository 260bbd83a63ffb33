"""The methods by name: one file, one config class and one line here for each."""

from collections.abc import Callable
from typing import Any

import torch

from ssl_core import backbones
from ssl_core.config import Pretrain
from ssl_core.methods.method import Method, Output
from ssl_core.methods.simclr import SimCLR
from ssl_core.methods.simsiam import SimSiam

__all__ = ["METHODS", "Method", "Output", "build"]

METHODS: dict[str, Callable[[Any, backbones.Backbone], Method]] = {
    "simclr": SimCLR,
    "simsiam": SimSiam,
}


def build(settled: Pretrain, seed: int) -> Method:
    """Return the method of a resolved config, with the random weights of `seed`."""
    torch.manual_seed(seed)
    return METHODS[settled.method.name](settled.method, backbones.build(settled.backbone))
