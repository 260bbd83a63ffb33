"""Eager optimizers: torch's, without the import of torch's compiler.

Torch disables torch.compile for methods of its optimizers, which imports all of the compiler: 1.4 s at the start of
every run. Nothing here is compiled, so the wrappers are removed; what the methods compute is unchanged.
"""

import inspect

import torch
from torch.optim import Optimizer


class EagerOptimizer(Optimizer):
    """An optimizer whose methods do not import torch's compiler."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class SGD(EagerOptimizer, torch.optim.SGD):
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class AdamW(EagerOptimizer, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
