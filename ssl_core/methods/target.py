"""The target: a slow copy of backbone and projector, which gives some methods what their views are to agree with."""

from torch import Tensor, nn

from ssl_core.methods.method import Method, RunPosition
from ssl_core.models import ema
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class TargetMethod(Method):
    """A method with a target that follows by a moving average, whose momentum rises from `start` to 1 if `rises`."""

    def __init__(self, backbone: Backbone, projector: MLP, *, start: float, rises: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.target = nn.Sequential(ema.make_ema_copy(backbone), ema.make_ema_copy(projector))
        self._start, self._rises = start, rises

    def embed(self, view: Tensor) -> Tensor:
        """Return z, N×D, of a view N×3×S×S."""
        return self.projector(self.backbone(view))

    def on_weights_loaded(self) -> None:
        self.target.load_state_dict(self._followed().state_dict())

    def after_step(self, position: RunPosition) -> None:
        value = ema.compute_momentum(self._start, position.progress) if self._rises else self._start
        ema.update_ema(self.target, self._followed(), value)

    def _followed(self) -> nn.Sequential:
        return nn.Sequential(self.backbone, self.projector)
