"""The base class of self-supervised methods: the interface that the training loop calls."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ssl_core.models.backbones import Backbone
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.heads import MLP


class Output(NamedTuple):
    """Output of a forward pass: the loss, and the embeddings for the representation metrics."""

    loss: Tensor  # scalar
    z: Tensor  # M×D, detached: the projector's output, all of view 1 first, then all of view 2, …


class RunPosition(NamedTuple):
    """Position in a run."""

    step: int  # steps done
    total_steps: int
    steps_per_epoch: int

    @property
    def progress(self) -> float:
        """Completed share of the run, 0 to 1."""
        return self.step / self.total_steps

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch


class Method(nn.Module):
    """A backbone, a projector and a loss; `forward(views) -> Output`, views being N×C×S×S each.

    State that a checkpoint needs (a queue, a centre, a target network) is a buffer or a module, so that it is in the
    state dict. With several processes the mean of their losses is that of the global batch
    (`ssl_core.distributed.process_group`).
    """

    backbone: Backbone
    projector: MLP

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Return the loss of a batch's views."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def encoder(self, preprocessing: Preprocessing, precision: str) -> Encoder:
        """Return the trained encoder, which shares the weights and puts them in eval mode."""
        return Encoder(self.backbone, self.projector, preprocessing, precision=precision)

    def heads(self) -> dict[str, nn.Module]:
        """Return the heads to save with the model, by name."""
        return {"projector": self.projector}

    def on_weights_loaded(self) -> None:
        """Run after the initial weights are loaded, such as to copy them to a target network."""

    def before_step(self, position: RunPosition) -> None:
        """Run between the backward pass and the optimizer's step, such as to freeze a layer."""

    def after_step(self, position: RunPosition) -> None:
        """Run after the optimizer's step, such as to update a target network."""

    def excluded_from_adaptation(self) -> Sequence[nn.Module]:
        """Return the modules that LARS and Muon neither adapt nor decay: a classifier of labels."""
        return ()

    def constant_lr(self) -> Sequence[nn.Module]:
        """Return the modules whose learning rate neither warms up nor decays."""
        return ()
