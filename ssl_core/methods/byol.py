"""BYOL (Grill et al. 2020, arXiv:2006.07733): predict the target network's projection of the other view."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.config.fields import known
from ssl_core.config.methods import BYOL as Config
from ssl_core.methods.losses import negative_cosine
from ssl_core.methods.method import Output
from ssl_core.methods.target import TargetMethod
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class BYOL(TargetMethod):
    """Each view passes both networks by itself, so batch norm sees N at a time."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        widths = known(config.projector)
        super().__init__(backbone, MLP((backbone.dim, *widths)), momentum=config.momentum)
        self.predictor = MLP((widths[-1], known(config.predictor_hidden), widths[-1]))

    def forward(self, views: Sequence[Tensor]) -> Output:
        z1, z2 = (self.embed(view) for view in views)  # N×D each
        p1, p2 = self.predictor(z1), self.predictor(z2)
        with torch.no_grad():
            t1, t2 = (self.target(view) for view in views)
        # The squared distance of unit vectors is 2 - 2·cos; the sum of both directions (equations 2 and 3).
        loss = (2 + 2 * negative_cosine(p1, t2)) + (2 + 2 * negative_cosine(p2, t1))
        return Output(loss, torch.cat([z1, z2]).detach())

    def heads(self) -> dict[str, nn.Module]:
        return {"projector": self.projector, "predictor": self.predictor}
