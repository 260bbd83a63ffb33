"""Heads: projectors and predictors, the multi-layer perceptrons on a backbone."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

LastNorm = Literal["none", "bn_no_bias", "bn_no_affine", "as_hidden"]
Activation = Literal["relu", "gelu"]
_AFFINE = {"bn_no_bias": True, "bn_no_affine": False}
_EARLIER_LAST_NORMS = {"scale": "bn_no_bias", "fixed": "bn_no_affine", "hidden": "as_hidden"}  # in older cards


class MLP(nn.Sequential):
    """Dense layers from widths[0] through to widths[-1], with batch norm and an activation between them.

    A dense layer has a bias exactly when no batch norm follows it. `last_norm` follows the last one: nothing, batch
    norm with weight but no bias (SimCLR), batch norm without affine parameters (SimSiam), or the norm and activation
    of the hidden layers (the lower layers of a head). `relu_first` puts the activation before the batch norm instead
    of after it. `description` holds the arguments, as a model card stores them.
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
        for inputs, outputs in pairwise(widths if last_norm == "as_hidden" else widths[:-1]):
            self.append(nn.Linear(inputs, outputs, bias=not hidden_norm))
            norms: list[nn.Module] = [nn.BatchNorm1d(outputs)] if hidden_norm else []
            act = nn.GELU() if activation == "gelu" else nn.ReLU(inplace=not relu_first)
            self.extend([act, *norms] if relu_first else [*norms, act])
        if last_norm == "as_hidden":
            return
        self.append(nn.Linear(widths[-2], widths[-1], bias=last_norm == "none"))
        if last_norm != "none":
            self.append(_build_last_norm(widths[-1], affine=_AFFINE[last_norm]))

    @classmethod
    def of_description(cls, description: Mapping[str, Any]) -> "MLP":
        """Return the head of a `description`, of this version or an earlier one, with random weights."""
        last_norm = description["last_norm"]
        return cls(**{**description, "last_norm": _EARLIER_LAST_NORMS.get(last_norm, last_norm)})

    @property
    def widths(self) -> list[int]:
        """The output width of each layer."""
        return list(self.description["widths"][1:])

    def lower(self, count: int) -> "MLP":
        """Return a head of the first `count` layers, 1 or more, with their weights; all of them: this head itself."""
        if count == len(self.widths):
            return self
        shape = {"widths": self.description["widths"][: count + 1], "last_norm": "as_hidden"}
        part = MLP(**self.description | shape)
        part.load_state_dict({key: value for key, value in self.state_dict().items() if key in part.state_dict()})
        return part

    def layers(self, h: Tensor) -> list[Tensor]:
        """Return each dense layer's output after its batch norm and activation, N×width; the last is `forward`'s."""
        outputs: list[Tensor] = []
        for module in self:
            if isinstance(module, nn.Linear):
                outputs.append(module(outputs[-1] if outputs else h))
            else:
                outputs[-1] = module(outputs[-1])
        return outputs


def _build_last_norm(width: int, *, affine: bool) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, affine=affine)
    norm.register_parameter("bias", None)
    return norm
