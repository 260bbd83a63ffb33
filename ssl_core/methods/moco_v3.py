"""MoCo v3 (Chen et al. 2021, arXiv:2104.02057): contrast queries with the momentum encoder's keys."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.config.fields import known
from ssl_core.config.methods import MoCoV3 as Config
from ssl_core.distributed.collectives import gather, local_slice
from ssl_core.methods.losses import info_nce
from ssl_core.methods.method import Output
from ssl_core.methods.target import TargetMethod
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class MoCoV3(TargetMethod):
    """Each view passes both networks by itself. The heads are those of the authors' ResNet."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        widths = known(config.projector)
        super().__init__(backbone, MLP((backbone.dim, *widths), last_norm="bn_no_affine"), momentum=config.momentum)
        self.predictor = MLP((widths[-1], known(config.predictor_hidden), widths[-1]))
        self.temperature = config.temperature

    def forward(self, views: Sequence[Tensor]) -> Output:
        z1, z2 = (self.embed(view) for view in views)  # N×D each
        q1, q2 = self.predictor(z1), self.predictor(z2)
        with torch.no_grad():
            k1, k2 = (self.target(view) for view in views)
        loss = self._contrastive_loss(q1, k2) + self._contrastive_loss(q2, k1)
        return Output(loss, torch.cat([z1, z2]).detach())

    def heads(self) -> dict[str, nn.Module]:
        return {"projector": self.projector, "predictor": self.predictor}

    def _contrastive_loss(self, q: Tensor, k: Tensor) -> Tensor:
        """Scaled by 2·temperature, as in the authors' code; the negatives are the other images' keys."""
        k = gather(k)  # of all processes
        return 2 * self.temperature * info_nce(q, k, k[:0], temperature=self.temperature, images=local_slice(len(q)))
