"""VICReg (Bardes et al. 2021, arXiv:2105.04906): invariance, variance and covariance of two views' embeddings."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_core.config.fields import known
from ssl_core.config.methods import VICReg as Config
from ssl_core.distributed.collectives import gather
from ssl_core.methods.losses import vicreg
from ssl_core.methods.method import Method, Output
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class VICReg(Method):
    """Each view passes the network by itself, so batch norm sees N at a time."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = MLP((backbone.dim, *known(config.projector)))
        self.weights = {
            "invariance": config.invariance,
            "variance": config.variance,
            "covariance": config.covariance,
        }

    def forward(self, views: Sequence[Tensor]) -> Output:
        z1, z2 = (self.projector(self.backbone(view)) for view in views)  # N×D each
        return Output(vicreg(gather(z1), gather(z2), **self.weights), torch.cat([z1, z2]).detach())
