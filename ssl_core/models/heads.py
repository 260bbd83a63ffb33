"""Heads: the small multi-layer perceptrons that stand on a backbone while it trains."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

LastNorm = Literal["none", "scale", "fixed", "hidden"]
Activation = Literal["relu", "gelu"]


class MLP(nn.Sequential):
    """Dense layers from widths[0] through to widths[-1], with batch norm and an activation between them.

    A dense layer has a bias exactly when no batch norm follows it. `last_norm` is what follows the last one: nothing,
    batch norm with a scale but no shift (SimCLR), batch norm without either (SimSiam), or, as "hidden", what follows
    those before it (the lower part of a head). `relu_first` puts the activation before the batch norm instead of after
    it. `description` is what makes an equal head again.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        hidden_norm: bool = True,
        last_norm: LastNorm = "none",
        relu_first: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.description: dict[str, Any] = {
            "widths": list(widths),
            "hidden_norm": hidden_norm,
            "last_norm": last_norm,
            "relu_first": relu_first,
            "activation": activation,
        }
        for inputs, outputs in pairwise(widths if last_norm == "hidden" else widths[:-1]):
            self.append(nn.Linear(inputs, outputs, bias=not hidden_norm))
            norms: list[nn.Module] = [nn.BatchNorm1d(outputs)] if hidden_norm else []
            act = nn.GELU() if activation == "gelu" else nn.ReLU(inplace=not relu_first)
            self.extend([act, *norms] if relu_first else [*norms, act])
        if last_norm == "hidden":
            return
        self.append(nn.Linear(widths[-2], widths[-1], bias=last_norm == "none"))
        if last_norm != "none":
            self.append(_build_last_norm(widths[-1], scale=last_norm == "scale"))

    @property
    def widths(self) -> list[int]:
        """The output width of each layer."""
        return list(self.description["widths"][1:])

    def lower(self, count: int) -> "MLP":
        """Return the head of the first `count` layers, 1 or more, with their weights; all of them: this head itself."""
        if count == len(self.widths):
            return self
        shape = {"widths": self.description["widths"][: count + 1], "last_norm": "hidden"}
        part = MLP(**self.description | shape)
        part.load_state_dict({key: value for key, value in self.state_dict().items() if key in part.state_dict()})
        return part

    def layers(self, h: Tensor) -> list[Tensor]:
        """Return what each dense layer gives with its batch norm and activation, N×width; the last is `forward`'s."""
        outputs: list[Tensor] = []
        for module in self:
            if isinstance(module, nn.Linear):
                outputs.append(module(outputs[-1] if outputs else h))
            else:
                outputs[-1] = module(outputs[-1])
        return outputs


def _build_last_norm(width: int, *, scale: bool) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, affine=scale)
    norm.register_parameter("bias", None)
    return norm
