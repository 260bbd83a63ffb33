"""DINO (Caron et al. 2021, arXiv:2104.14294): self-distillation with multi-crop and an EMA teacher.

The student sees all views; the teacher sees the first two, the global crops. Teacher outputs are centred and sharpened.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.config.fields import known
from ssl_core.config.methods import DINO as Config
from ssl_core.distributed import collectives
from ssl_core.methods.losses import dino_cross_entropy
from ssl_core.methods.method import Output, RunPosition
from ssl_core.methods.target import TargetMethod
from ssl_core.models import ema
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class Prototypes(nn.Linear):
    """The last layer, weight-normalised with norms fixed at 1: cosines of embeddings N×D with K prototypes, N×K."""

    def forward(self, z: Tensor) -> Tensor:
        return F.linear(F.normalize(z, dim=1), F.normalize(self.weight, dim=1))


class DINO(TargetMethod):
    """Each view passes its network by itself."""

    centre: Tensor  # K, the EMA of the teacher's mean logits
    teacher_temperature: Tensor  # scalar; warms up in the first part of the run

    def __init__(self, config: Config, backbone: Backbone) -> None:
        widths = known(config.projector)
        projector = MLP((backbone.dim, *widths), hidden_norm=config.projector_batch_norm, activation="gelu")
        super().__init__(backbone, projector, momentum=config.momentum)
        self.prototypes = Prototypes(widths[-1], config.prototypes, bias=False)
        self.target_prototypes = ema.make_ema_copy(self.prototypes)
        self.config = config
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self.register_buffer("teacher_temperature", torch.tensor(config.teacher_temperature[0]))

    def forward(self, views: Sequence[Tensor]) -> Output:
        z = [self.embed(view) for view in views]  # N×D each
        students = [
            self.prototypes(each).to(self.centre.dtype) / self.config.student_temperature for each in z
        ]  # N×K each
        with torch.no_grad():
            logits = [self.target_prototypes(self.target(view)).to(self.centre.dtype) for view in views[:2]]
            teachers = [(each - self.centre) / self.teacher_temperature for each in logits]
            self._update_centre(torch.cat(logits))
        pairs = [(s, t) for i, t in enumerate(teachers) for j, s in enumerate(students) if i != j]
        loss = torch.stack([dino_cross_entropy(s, t) for s, t in pairs]).mean()
        return Output(loss, torch.cat(z[:2]).detach())

    def heads(self) -> dict[str, nn.Module]:
        return {"projector": self.projector, "prototypes": self.prototypes}

    def on_weights_loaded(self) -> None:
        super().on_weights_loaded()
        self.target_prototypes.load_state_dict(self.prototypes.state_dict())

    def before_step(self, position: RunPosition) -> None:
        if position.epoch < self.config.frozen_epochs:
            self.prototypes.weight.grad = None

    def after_step(self, position: RunPosition) -> None:
        super().after_step(position)
        ema.update_ema(
            self.target_prototypes, self.prototypes, ema.compute_momentum(self.config.momentum, position.progress)
        )
        low, high = self.config.teacher_temperature
        warmup = min(1.0, position.progress / self.config.teacher_warmup) if self.config.teacher_warmup else 1.0
        self.teacher_temperature.fill_(low + warmup * (high - low))

    def _update_centre(self, logits: Tensor) -> None:
        self.centre.lerp_(collectives.mean(logits.mean(0)), 1 - self.config.centre_momentum)
