"""Classification: a backbone, the lower layers of a head or none, and a classifier, taught by cross-entropy."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.errors import ConfigUnfit
from ssl_core.methods.method import Method, Output
from ssl_core.models.backbones import Backbone
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.heads import MLP

ALL, HEAD_ALONE = -1, 4  # of `fine_tune_after_block`


class Classification(Method):
    """`forward([view], labels)`, one view of each image. What is frozen runs in eval mode and has no gradient."""

    def __init__(self, backbone: Backbone, head: MLP | None, classes: int, frozen: Sequence[nn.Module] = ()) -> None:
        """frozen: parts of the backbone, all with their statistics."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.classifier = nn.Linear(backbone.dim if head is None else head.widths[-1], classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self._frozen = list(frozen)
        for part in self._frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> "Classification":
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, views: Sequence[Tensor], labels: Tensor | None = None) -> Output:
        """labels: int64 N."""
        assert labels is not None
        logits, h = self.classify(views[0])
        return Output(F.cross_entropy(logits.float(), labels), h.detach())

    def classify(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits N×C of a view N×3×S×S, and the features on which the classifier stands."""
        h = self.backbone(view)
        h = h if self.head is None else self.head(h)  # N×F
        return self.classifier(h), h

    def encoder(self, preprocessing: Preprocessing, precision: str) -> Encoder:
        return Encoder(self.backbone, self.head, preprocessing, precision=precision, classifier=self.classifier)

    def heads(self) -> dict[str, nn.Module]:
        head: dict[str, nn.Module] = {"projector": self.head} if self.head is not None else {}
        return head | {"classifier": self.classifier}

    def excluded_from_adaptation(self) -> Sequence[nn.Module]:
        return (self.classifier,)


def up_to_block(backbone: Backbone, block: int) -> list[nn.Module]:
    """Return the parts of a backbone up to a group of blocks: -1 none, 0 the stem, k the groups to k, 4 all of it.

    Raises ConfigUnfit when the backbone has no such groups.
    """
    if block in (ALL, HEAD_ALONE):
        return [] if block == ALL else [backbone]
    parts = dict(backbone.body.named_children())
    if (after := f"layer{block + 1}") not in parts:
        raise ConfigUnfit("This backbone has no groups of blocks: fine_tune_after_block can be -1 or 4.")
    return list(parts.values())[: list(parts).index(after)]
