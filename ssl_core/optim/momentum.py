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
    def update(self, ws: list[Tensor], gs: list[Tensor], vs: list[Tensor], group: dict[str, Any]) -> None:
        """Update a group's parameters and their buffers in place by their gradients, which are not changed."""

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
            if ws := [w for w in group["params"] if w.grad is not None]:
                self.update(ws, [w.grad for w in ws], [self._get_buffer(w) for w in ws], group)
        return loss

    def _get_buffer(self, w: Tensor) -> Tensor:
        state = self.state[w]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(w)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
