"""SimSiam (Chen & He 2020, arXiv:2011.10566): predict one view's embedding from the other's, behind a stop-gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.backbones import Backbone
from ssl_core.heads import MLP
from ssl_core.losses import negative_cosine
from ssl_core.method_config import SimSiam as Config
from ssl_core.methods.method import Method, Output


class SimSiam(Method):
    """Each view passes the network by itself, so batch norm sees N at a time."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        assert config.projector != "auto"
        assert config.predictor_hidden != "auto"
        dim, relu_first = config.projector[-1], config.projector_relu_first
        self.backbone = backbone
        self.projector = MLP((backbone.dim, *config.projector), last_norm="fixed", relu_first=relu_first)
        self.predictor = MLP((dim, config.predictor_hidden, dim), relu_first=relu_first)
        self.predictor_constant_lr = config.predictor_constant_lr

    def forward(self, views: Sequence[Tensor]) -> Output:
        z1, z2 = (self.projector(self.backbone(view)) for view in views)  # N×D each
        p1, p2 = self.predictor(z1), self.predictor(z2)
        z1, z2 = z1.detach(), z2.detach()  # the stop-gradient
        loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        return Output(loss, torch.cat([z1, z2]))

    def heads(self) -> dict[str, nn.Module]:
        return {"projector": self.projector, "predictor": self.predictor}

    def constant_lr(self) -> Sequence[nn.Module]:
        return (self.predictor,) if self.predictor_constant_lr else ()
