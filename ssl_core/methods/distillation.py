"""Distillation (SimCLRv2, Chen et al. 2020, arXiv:2006.10029, section 2): a student imitates its teacher."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from ssl_core.config import Distill
from ssl_core.data.label_budget import UNLABELLED
from ssl_core.distributed import collectives
from ssl_core.methods.classification import Classification
from ssl_core.methods.losses import soft_cross_entropy
from ssl_core.methods.method import Output
from ssl_core.models.backbones import Backbone


class Distillation(Classification):
    """The loss is (1−w)·distillation + w·cross-entropy (equation 3), the latter over the batch's labelled images."""

    def __init__(self, config: Distill, backbone: Backbone, classes: int, teacher: Callable[[Tensor], Tensor]) -> None:
        """teacher: a view N×C×S×S -> logits N×classes."""
        super().__init__(backbone, None, classes)
        self.temperature = config.temperature
        self.label_weight = config.label_weight
        self.teacher = teacher

    def forward(self, views: Sequence[Tensor], labels: Tensor | None = None) -> Output:
        """labels: int64 N, UNLABELLED for unlabelled images."""
        logits, h = self.classify(views[0])
        loss = soft_cross_entropy(logits, self.teacher(views[0]), temperature=self.temperature)
        if self.label_weight > 0:
            assert labels is not None
            # Mean number of labelled images over the processes.
            labelled = collectives.mean((labels != UNLABELLED).sum().float()).clamp(min=1e-9)
            supervised = F.cross_entropy(logits.float(), labels, ignore_index=UNLABELLED, reduction="sum") / labelled
            loss = (1 - self.label_weight) * loss + self.label_weight * supervised
        return Output(loss, h.detach())
