"""Supervised classification: a backbone, optional head layers and a linear classifier, trained with cross-entropy."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.errors import ConfigUnfit
from ssl_core.methods.method import Method, Output
from ssl_core.models.backbones import Backbone
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.heads import MLP

TRAIN_ALL, TRAIN_HEAD = -1, 4  # values of `fine_tune_after_block`


class Classification(Method):
    """`forward([view], labels)`, one view of each image. Frozen modules run in eval mode and get no gradient."""

    def __init__(self, backbone: Backbone, head: MLP | None, classes: int, frozen: Sequence[nn.Module] = ()) -> None:
        """frozen: modules of the backbone; their batch norm statistics are frozen too."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.classifier = nn.Linear(backbone.dim if head is None else head.widths[-1], classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self._frozen = list(frozen)
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "Classification":
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, views: Sequence[Tensor], labels: Tensor | None = None) -> Output:
        """labels: int64 N."""
        assert labels is not None
        logits, h = self.classify(views[0])
        return Output(F.cross_entropy(logits.float(), labels), h.detach())

    def classify(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits N×classes of a view N×C×S×S, and the classifier's input features N×F."""
        h = self.backbone(view)
        h = h if self.head is None else self.head(h)  # N×F
        return self.classifier(h), h

    def encoder(self, preprocessing: Preprocessing, precision: str) -> Encoder:
        return Encoder(self.backbone, self.head, preprocessing, precision=precision, classifier=self.classifier)

    def heads(self) -> dict[str, nn.Module]:
        projector: dict[str, nn.Module] = {"projector": self.head} if self.head is not None else {}
        return projector | {"classifier": self.classifier}

    def excluded_from_adaptation(self) -> Sequence[nn.Module]:
        return (self.classifier,)


def list_frozen_modules(backbone: Backbone, block: int) -> list[nn.Module]:
    """Return the modules to freeze: -1 none, 0 the stem, k the stem and k stages, 4 the whole backbone.

    Raises ConfigUnfit when the backbone has no such stages.
    """
    if block in (TRAIN_ALL, TRAIN_HEAD):
        return [] if block == TRAIN_ALL else [backbone]
    modules = dict(backbone.body.named_children())
    if (after := f"layer{block + 1}") not in modules:
        raise ConfigUnfit("This backbone has no stages: fine_tune_after_block can be -1 or 4.")
    return list(modules.values())[: list(modules).index(after)]
