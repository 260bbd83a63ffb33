"""SimSiam and FastSiam: predict an embedding from another view's, behind a stop-gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.config.fields import known
from ssl_core.config.methods import SimSiam as Config
from ssl_core.methods.losses import negative_cosine
from ssl_core.methods.method import Method, Output
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class SimSiam(Method):
    """SimSiam (Chen & He 2020, arXiv:2011.10566). Each view passes by itself: batch norm sees N at a time."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        widths, relu_first = known(config.projector), config.projector_relu_first
        self.backbone = backbone
        self.projector = MLP((backbone.dim, *widths), last_norm="bn_no_affine", relu_first=relu_first)
        self.predictor = MLP((widths[-1], known(config.predictor_hidden), widths[-1]), relu_first=relu_first)
        self.predictor_constant_lr = config.predictor_constant_lr

    def forward(self, views: Sequence[Tensor]) -> Output:
        z1, z2 = (self.projector(self.backbone(view)) for view in views)  # N×D each
        p1, p2 = self.predictor(z1), self.predictor(z2)
        z1, z2 = z1.detach(), z2.detach()  # the stop-gradient
        loss = negative_cosine(p1, z2) / 2 + negative_cosine(p2, z1) / 2  # equation 2
        return Output(loss, torch.cat([z1, z2]))

    def heads(self) -> dict[str, nn.Module]:
        return {"projector": self.projector, "predictor": self.predictor}

    def constant_lr(self) -> Sequence[nn.Module]:
        return (self.predictor,) if self.predictor_constant_lr else ()


class FastSiam(SimSiam):
    """FastSiam (Pototzky et al. 2022), section 3: the target of a view is the mean embedding of the V − 1 others."""

    def forward(self, views: Sequence[Tensor]) -> Output:
        z = torch.stack([self.projector(self.backbone(view)) for view in views])  # V×N×D
        p = [self.predictor(view) for view in z]
        z = z.detach()  # the stop-gradient
        targets = [torch.cat([z[:i], z[i + 1 :]]).mean(0) for i in range(len(z))]
        loss = torch.stack([negative_cosine(*pair) for pair in zip(p, targets, strict=True)]).mean()
        return Output(loss, z.flatten(0, 1))
