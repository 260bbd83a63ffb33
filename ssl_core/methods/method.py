"""A method: what the training loop asks of each of them."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ssl_core.models.backbones import Backbone
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.heads import MLP


class Output(NamedTuple):
    """What a forward pass gives: the loss to descend, and the embeddings whose health is watched."""

    loss: Tensor  # scalar
    z: Tensor  # M×D, detached: the projector's output, first all of view 1, then all of view 2, …


class RunPosition(NamedTuple):
    """How far a run is."""

    step: int  # steps done
    total_steps: int
    steps_per_epoch: int

    @property
    def progress(self) -> float:
        """The share of the run that is done."""
        return self.step / self.total_steps

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch


class Method(nn.Module):
    """A backbone, a projector and a loss; `forward(views) -> Output`, views being N×3×S×S each.

    Whatever must survive a restart (a queue, a centre, a slow copy) is a buffer or a module, so that it is in the
    state dict. With several processes the loss is that of their joined batch (`ssl_core.distributed.process_group`).
    """

    backbone: Backbone
    projector: MLP

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Return the loss of a batch's views."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def encoder(self, preprocessing: Preprocessing, precision: str) -> Encoder:
        """Return the encoder that is learned, sharing its weights; it puts them in eval mode."""
        return Encoder(self.backbone, self.projector, preprocessing, precision=precision)

    def heads(self) -> dict[str, nn.Module]:
        """Return the heads that are kept with a trained model."""
        return {"projector": self.projector}

    def on_weights_loaded(self) -> None:
        """Do what has to follow once the starting weights are in place, such as copying them to a slow network."""

    def before_step(self, position: RunPosition) -> None:
        """Do what has to come between the gradient and the optimizer's step, such as holding a layer still."""

    def after_step(self, position: RunPosition) -> None:
        """Do what has to follow an optimizer's step, such as moving a slow copy."""

    def excluded_from_adaptation(self) -> Sequence[nn.Module]:
        """Return the modules that LARS and Muon neither adapt nor decay: a classifier of labels."""
        return ()

    def constant_lr(self) -> Sequence[nn.Module]:
        """Return the modules whose learning rate neither warms up nor decays."""
        return ()
