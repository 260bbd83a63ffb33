"""Momentum optimizers: the shared step of optimizers with one momentum buffer per parameter."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

from ssl_core.optim.eager import EagerOptimizer


class MomentumOptimizer(EagerOptimizer, ABC):
    """Updates each parameter that has a gradient; its buffer starts at zero, in the state as `momentum_buffer`."""

    @abstractmethod
    def update_parameter(self, w: Tensor, g: Tensor, v: Tensor, group: dict[str, Any]) -> None:
        """Update the parameter `w` and its buffer `v` in place by its gradient `g`, which is not changed."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    state = self.state[w]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(w)
                    self.update_parameter(w, w.grad, state["momentum_buffer"], group)
        return loss
