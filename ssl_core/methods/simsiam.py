"""SimSiam (Chen & He 2020, arXiv:2011.10566): predict one view's embedding from the others', behind a stop-gradient.

With more than two views it is FastSiam (Pototzky et al. 2022): the target of a view is the mean of the others'.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.config.methods import SimSiam as Config
from ssl_core.methods.losses import negative_cosine
from ssl_core.methods.method import Method, Output
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class SimSiam(Method):
    """Each view passes the network by itself, so batch norm sees N at a time."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        assert config.projector != "auto"
        assert config.predictor_hidden != "auto"
        dim, relu_first = config.projector[-1], config.projector_relu_first
        self.backbone = backbone
        self.projector = MLP((backbone.dim, *config.projector), last_norm="bn_no_affine", relu_first=relu_first)
        self.predictor = MLP((dim, config.predictor_hidden, dim), relu_first=relu_first)
        self.predictor_constant_lr = config.predictor_constant_lr

    def forward(self, views: Sequence[Tensor]) -> Output:
        z = torch.stack([self.projector(self.backbone(view)) for view in views])  # V×N×D
        p = [self.predictor(view) for view in z]
        z = z.detach()  # the stop-gradient
        others = [torch.cat([z[:i], z[i + 1 :]]).mean(0) for i in range(len(z))]
        loss = torch.stack([negative_cosine(*pair) for pair in zip(p, others, strict=True)]).mean()
        return Output(loss, z.flatten(0, 1))

    def heads(self) -> dict[str, nn.Module]:
        return {"projector": self.projector, "predictor": self.predictor}

    def constant_lr(self) -> Sequence[nn.Module]:
        return (self.predictor,) if self.predictor_constant_lr else ()
