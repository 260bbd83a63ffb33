"""SimCLR (Chen et al. 2020, arXiv:2002.05709): contrastive learning on two views with NT-Xent."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_core.config.fields import known
from ssl_core.config.methods import SimCLR as Config
from ssl_core.distributed.collectives import gather, local_slice
from ssl_core.methods.losses import nt_xent
from ssl_core.methods.method import Method, Output
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class SimCLR(Method):
    """Both views pass the network as one batch of 2N, so batch norm sees all of them."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        norm = config.projector_batch_norm
        self.backbone = backbone
        widths = (backbone.dim, *known(config.projector))
        self.projector = MLP(widths, hidden_norm=norm, last_norm="bn_no_bias" if norm else "none")
        self.config = config

    def forward(self, views: Sequence[Tensor]) -> Output:
        h = self.backbone(torch.cat(list(views)))  # 2N×F
        z = self.projector(h)  # 2N×D
        images = local_slice(len(z) // 2)
        z1, z2 = (gather(part) for part in z.chunk(2))  # of all processes
        loss = nt_xent(
            z1,
            z2,
            temperature=self.config.temperature,
            same_view_negatives=self.config.same_view_negatives,
            decoupled=self.config.decoupled,
            images=images,
        )
        return Output(loss, z.detach())
