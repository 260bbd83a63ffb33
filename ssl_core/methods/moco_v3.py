"""MoCo v3 (Chen et al. 2021, arXiv:2104.02057): a predicted query finds its key, a slow copy's, in the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.config.methods import MoCoV3 as Config
from ssl_core.distributed.collectives import gather
from ssl_core.methods.losses import info_nce
from ssl_core.methods.method import Output
from ssl_core.methods.target import TargetMethod
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class MoCoV3(TargetMethod):
    """Each view passes both networks by itself. Heads as the authors have them on a ResNet."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        assert config.projector != "auto"
        assert config.predictor_hidden != "auto"
        projector = MLP((backbone.dim, *config.projector), last_norm="bn_no_affine")
        super().__init__(backbone, projector, start=config.momentum)
        dim = config.projector[-1]
        self.predictor = MLP((dim, config.predictor_hidden, dim))
        self.temperature = config.temperature

    def forward(self, views: Sequence[Tensor]) -> Output:
        z1, z2 = (self.embed(view) for view in views)  # N×D each
        q1, q2 = self.predictor(z1), self.predictor(z2)
        with torch.no_grad():
            k1, k2 = (self.target(view) for view in views)
        loss = self._contrast(q1, k2) + self._contrast(q2, k1)
        return Output(loss, torch.cat([z1, z2]).detach())

    def heads(self) -> dict[str, nn.Module]:
        return {"projector": self.projector, "predictor": self.predictor}

    def _contrast(self, q: Tensor, k: Tensor) -> Tensor:
        """The negatives are the other images' keys; the factor 2·temperature is the authors'."""
        q, k = gather(q), gather(k)
        return 2 * self.temperature * info_nce(q, k, k[:0], temperature=self.temperature)
