"""Heads: the small multi-layer perceptrons that stand on a backbone while it trains."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

LastNorm = Literal["none", "scale", "fixed"]


def mlp(
    widths: Sequence[int], *, hidden_norm: bool = True, last_norm: LastNorm = "none", relu_first: bool = False
) -> nn.Sequential:
    """Return dense layers from widths[0] through to widths[-1], with batch norm and ReLU between them.

    A dense layer has a bias exactly when no batch norm follows it. `last_norm` is what follows the last one: nothing,
    batch norm with a scale but no shift (SimCLR), or batch norm without either (SimSiam). `relu_first` puts the ReLU
    before the batch norm instead of after it.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers.append(nn.Linear(inputs, outputs, bias=not hidden_norm))
        steps: list[nn.Module] = [nn.BatchNorm1d(outputs)] if hidden_norm else []
        relu = nn.ReLU(inplace=not relu_first)
        layers.extend([relu, *steps] if relu_first else [*steps, relu])
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_norm == "none"))
    if last_norm != "none":
        layers.append(_last_norm(widths[-1], scale=last_norm == "scale"))
    return nn.Sequential(*layers)


def _last_norm(width: int, *, scale: bool) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, affine=scale)
    norm.register_parameter("bias", None)
    return norm
