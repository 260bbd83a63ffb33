"""Self-supervised methods by name; each is one file, one config class and one line of METHODS."""

from collections.abc import Callable
from typing import Any

from ssl_core.config import Pretrain, view_sets
from ssl_core.methods.barlow_twins import BarlowTwins
from ssl_core.methods.byol import BYOL
from ssl_core.methods.dino import DINO
from ssl_core.methods.method import Method, Output, RunPosition
from ssl_core.methods.moco_v2 import MoCoV2
from ssl_core.methods.moco_v3 import MoCoV3
from ssl_core.methods.simclr import SimCLR
from ssl_core.methods.simsiam import FastSiam, SimSiam
from ssl_core.methods.vicreg import VICReg
from ssl_core.models import backbones

__all__ = ["METHODS", "Method", "Output", "RunPosition", "build"]

METHODS: dict[str, Callable[[Any, backbones.Backbone], Method]] = {
    "simclr": SimCLR,
    "simsiam": SimSiam,
    "byol": BYOL,
    "moco_v2": MoCoV2,
    "moco_v3": MoCoV3,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "dino": DINO,
}
MULTI_VIEW = METHODS | {"simsiam": FastSiam}  # with more than two views


def build(resolved: Pretrain) -> Method:
    """Return the method of a resolved config, with random weights from torch's global generator."""
    count = sum(int(views.num_views) for views in view_sets(resolved.views))
    method = (MULTI_VIEW if count > 2 else METHODS)[resolved.method.name]
    return method(resolved.method, backbones.build(resolved.backbone))
