"""The loop that optimizers share whose rule for a tensor needs its gradient and one buffer."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor


class MomentumOptimizer(torch.optim.Optimizer, ABC):
    """Moves each tensor that has a gradient by `move`; the buffer starts at zero and is kept as `momentum_buffer`."""

    @abstractmethod
    def move(self, w: Tensor, g: Tensor, v: Tensor, group: dict[str, Any]) -> None:
        """Move the tensor `w` in place by its gradient `g`, which stays as it is, and its buffer `v`."""

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
                    self.move(w, w.grad, state["momentum_buffer"], group)
        return loss
