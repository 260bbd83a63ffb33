"""The loop that optimizers share whose rule for a tensor needs its gradient and one buffer."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer


class MomentumOptimizer(Optimizer, ABC):
    """Moves each tensor that has a gradient by `update_parameter`; the buffer starts at zero and is kept as `momentum_buffer`."""

    # Torch keeps its compiler away from these four, and loads all of it to say so: 1.4 s at the start of every run.
    # Nothing here is compiled, so they stand as they were before they were wrapped. Torch's own SGD and AdamW load
    # it in their steps too.
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    @abstractmethod
    def update_parameter(self, w: Tensor, g: Tensor, v: Tensor, group: dict[str, Any]) -> None:
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
                    self.update_parameter(w, w.grad, state["momentum_buffer"], group)
        return loss
