"""Optimizers of a config, their parameter groups, and the learning-rate schedule."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.config import LARS as LARSConfig
from ssl_core.config import AdamW
from ssl_core.config import Muon as MuonConfig
from ssl_core.config import Optimizer as OptimizerConfig
from ssl_core.config.fields import known
from ssl_core.methods.method import Method
from ssl_core.optim import eager
from ssl_core.optim.lars import LARS
from ssl_core.optim.muon import Muon


def build(config: OptimizerConfig, method: Method, base_lr: float, precision: str = "fp32") -> torch.optim.Optimizer:
    """Return the optimizer of a resolved config over the method's parameters.

    base_lr: the scaled peak rate; precision: "fp32" or "bf16", of Muon's products on a GPU.
    """
    groups = make_parameter_groups(method, config, base_lr)
    if isinstance(config, LARSConfig):
        return LARS(
            groups,
            lr=base_lr,
            momentum=config.momentum,
            trust=config.trust,
            classic_momentum=config.classic_momentum,
            nesterov=config.nesterov,
        )
    if isinstance(config, MuonConfig):
        return Muon(
            groups,
            lr=base_lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            steps=config.steps,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        )
    if isinstance(config, AdamW):
        return eager.AdamW(groups, lr=base_lr, betas=config.betas, foreach=True)
    nesterov = config.nesterov and config.momentum > 0
    return eager.SGD(groups, lr=base_lr, momentum=config.momentum, nesterov=nesterov, foreach=True)


def make_parameter_groups(method: Method, config: OptimizerConfig, base_lr: float) -> list[dict[str, Any]]:
    """Return up to four groups: weights, or norms and biases; at a scheduled or a constant rate.

    Norms and biases (every tensor of one dimension) are never adapted by LARS or Muon, and decayed only if the config
    sets it. For these two, modules that the method excludes from adaptation are treated alike, and both may have a rate
    of their own, `vector_lr`.
    """
    own = config.vector_lr if isinstance(config, LARSConfig | MuonConfig) else None
    vector_lr = base_lr if own is None else own * (base_lr / known(config.lr))
    constant, excluded = _parameter_ids(method.constant_lr()), _parameter_ids(method.excluded_from_adaptation())
    if not isinstance(config, LARSConfig | MuonConfig):
        excluded = set()
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for parameter in method.parameters():
        if parameter.requires_grad:
            small = parameter.ndim <= 1 or id(parameter) in excluded
            groups.setdefault((small, id(parameter) in constant), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if small and not config.decay_norm_and_bias else config.weight_decay,
            "adapt": not small,
            "constant_lr": fixed,
            "base_lr": vector_lr if small else base_lr,
        }
        for (small, fixed), parameters in groups.items()
    ]


def _parameter_ids(modules: Sequence[nn.Module]) -> set[int]:
    return {id(p) for module in modules for p in module.parameters()}
