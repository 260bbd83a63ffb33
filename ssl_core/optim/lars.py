"""LARS: layer-wise adaptive rate scaling (You et al. 2017, arXiv:1708.03888)."""

from typing import Any

import torch
from torch import Tensor

from ssl_core.optim.momentum import MomentumOptimizer


class LARS(MomentumOptimizer):
    """LARS with the arithmetic of google-research/simclr.

    The trust ratio is trust·‖w‖/‖g + decay·w‖, and 1 where a norm is 0 or the group has `adapt=False`; it applies
    without decay as well. `classic_momentum` puts the rate inside the momentum buffer; otherwise the ratio is that of
    the buffered update and the rate is applied outside.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float = 0.9,
        trust: float = 0.001,
        weight_decay: float = 0.0,
        classic_momentum: bool = True,
        nesterov: bool = False,
        adapt: bool = True,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": weight_decay}
        super().__init__(
            params, defaults | {"classic_momentum": classic_momentum, "nesterov": nesterov, "adapt": adapt}
        )

    def update_parameter(self, w: Tensor, g: Tensor, v: Tensor, group: dict[str, Any]) -> None:
        decayed, momentum, lr = g.add(w, alpha=group["weight_decay"]), group["momentum"], group["lr"]
        if group["classic_momentum"]:
            scaled = decayed * (lr * _compute_trust_ratio(w, decayed, group))
            v.mul_(momentum).add_(scaled)
            w.sub_(scaled.add(v, alpha=momentum) if group["nesterov"] else v)
        else:
            v.mul_(momentum).add_(decayed)
            update = decayed.add(v, alpha=momentum) if group["nesterov"] else v
            w.sub_(update * (lr * _compute_trust_ratio(w, update, group)))


def _compute_trust_ratio(w: Tensor, update: Tensor, group: dict[str, Any]) -> Tensor | float:
    if not group["adapt"]:
        return 1.0
    w_norm, norm = w.norm(), update.norm()
    return torch.where((w_norm > 0) & (norm > 0), group["trust"] * w_norm / norm, 1.0)
