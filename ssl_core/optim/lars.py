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

    def update(self, ws: list[Tensor], gs: list[Tensor], vs: list[Tensor], group: dict[str, Any]) -> None:
        decayed, momentum = list(torch._foreach_add(gs, ws, alpha=group["weight_decay"])), group["momentum"]
        if group["classic_momentum"]:
            torch._foreach_mul_(decayed, _compute_rates(ws, decayed, group))
            torch._foreach_mul_(vs, momentum)
            torch._foreach_add_(vs, decayed)
            updates = list(torch._foreach_add(decayed, vs, alpha=momentum)) if group["nesterov"] else vs
            torch._foreach_sub_(ws, updates)
        else:
            torch._foreach_mul_(vs, momentum)
            torch._foreach_add_(vs, decayed)
            updates = list(torch._foreach_add(decayed, vs, alpha=momentum)) if group["nesterov"] else vs
            torch._foreach_sub_(ws, torch._foreach_mul(updates, _compute_rates(ws, updates, group)))


def _compute_rates(ws: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> list[Tensor] | float:
    """The learning rate times the trust ratio, for each parameter or for all."""
    if not group["adapt"]:
        return float(group["lr"])
    w_norms, norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (ws, updates))
    ratios = torch.where((w_norms > 0) & (norms > 0), group["trust"] * w_norms / norms, 1.0)
    return list((group["lr"] * ratios).unbind())
