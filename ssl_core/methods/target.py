"""The target network (BYOL), momentum encoder (MoCo) or teacher (DINO): an EMA copy of backbone and projector."""

from torch import Tensor, nn

from ssl_core.methods.method import Method, RunPosition
from ssl_core.models import ema
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class TargetMethod(Method):
    """A method with a target network, updated after every step; its momentum rises from `momentum` to 1 if `rising`."""

    def __init__(self, backbone: Backbone, projector: MLP, *, momentum: float, rising: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.target = nn.Sequential(ema.make_ema_copy(backbone), ema.make_ema_copy(projector))
        self._momentum, self._rising = momentum, rising

    def embed(self, view: Tensor) -> Tensor:
        """Return the online network's z, N×D, of a view N×C×S×S."""
        return self.projector(self.backbone(view))

    def on_weights_loaded(self) -> None:
        self.target.load_state_dict(self._online().state_dict())

    def after_step(self, position: RunPosition) -> None:
        momentum = ema.compute_momentum(self._momentum, position.progress) if self._rising else self._momentum
        ema.update_ema(self.target, self._online(), momentum)

    def _online(self) -> nn.Sequential:
        return nn.Sequential(self.backbone, self.projector)
