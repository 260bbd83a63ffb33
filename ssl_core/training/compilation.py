"""Compilation of a run: its backbones are compiled, and run as they are where the compiler fails."""

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from ssl_core.compiler import begin_step, compile_whole
from ssl_core.config import TrainingRun, view_sets
from ssl_core.config.fields import known
from ssl_core.errors import is_out_of_memory
from ssl_core.models.resnet import ResNet
from ssl_core.models.torchvision_models import TorchvisionModel

R = TypeVar("R")

_ATTEMPTS = 4  # at each shape: compiled in the first, warmed up and recorded in those after it
_FEW_PIXELS = 512 * 32**2  # of all views of a step. On an H200 a ResNet-18 takes 12 ms for half of them, and 5 recorded
_MOST_CHARACTERS = 300  # of the compiler's message


def is_launch_bound(resolved: TrainingRun) -> bool:
    """Whether a GPU is faster with a step of the resolved config than the host is with launching its kernels."""
    side = known(resolved.image_size)
    pixels = sum(int(views.num_views) * (side * views.size) ** 2 for views in view_sets(resolved.views))
    return resolved.device == "cuda" and known(resolved.batch_size) * pixels <= _FEW_PIXELS


class Compilation:
    """The compiled backbones of a network, and the way back to the plain ones where the compiler fails."""

    def __init__(self, network: nn.Module, *, is_recorded: bool) -> None:
        """Compile the backbones in `network`, for their calls in training mode; names of parameters are kept.

        is_recorded: launch their kernels as CUDA graphs.
        """
        self.failure: str | None = None  # the beginning of the compiler's message, once it has failed
        self._network = network
        self._forwards: list[_TrainingForward] = []
        for backbone in filter(_is_backbone, network.modules()):
            backbone.forward = _TrainingForward(backbone, backbone.forward, is_recorded=is_recorded)
            self._forwards.append(backbone.forward)
        self._is_recorded = is_recorded
        self._attempts: Counter[object] = Counter()  # by shape

    @property
    def is_active(self) -> bool:
        """Whether the compiled functions are used."""
        return self.failure is None

    def attempt(self, compute: Callable[[], R], shape: object) -> R:
        """Return what `compute` returns, a forward and a backward pass on tensors of this shape.

        If the compiler fails at the first of a shape, or the recording in those after it, restore the buffers and
        gradients of the network, and compute it without the compiler, as everything from then on.
        """
        if self.is_active and self._is_recorded:
            begin_step()
        if not self.is_active or self._attempts[shape] == _ATTEMPTS:
            return compute()
        buffers = [buffer.clone() for buffer in self._network.buffers()]
        try:
            result = compute()
        except Exception as error:  # one that is not the compiler's comes again below
            if is_out_of_memory(error):
                raise
            self._give_up(error)
        else:
            self._attempts[shape] += 1
            return result
        # Not above, where the error still holds the tensors of the pass that failed.
        for buffer, before in zip(self._network.buffers(), buffers, strict=True):
            buffer.copy_(before)
        self._network.zero_grad(set_to_none=True)
        return compute()

    def _give_up(self, error: Exception) -> None:
        self.failure = " ".join(str(error).split())[:_MOST_CHARACTERS]
        for forward in self._forwards:
            forward.stop()


class _TrainingForward:
    """Evaluation, whose batches have many sizes, is not compiled."""

    def __init__(self, backbone: nn.Module, forward: Callable[[Tensor], Tensor], *, is_recorded: bool) -> None:
        self._backbone, self._forward = backbone, forward
        self._compiled = compile_whole(forward, is_recorded=is_recorded)

    def __call__(self, images: Tensor) -> Tensor:
        """Return N×F of N×C×S×S."""
        return (self._compiled if self._backbone.training else self._forward)(images)

    def stop(self) -> None:
        """Compute as the plain backbone does from now on."""
        self._compiled = self._forward


def _is_backbone(module: nn.Module) -> bool:
    return isinstance(module, ResNet | TorchvisionModel)
