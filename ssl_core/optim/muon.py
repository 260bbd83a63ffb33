"""Muon: momentum orthogonalised by Newton–Schulz iteration (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""

from typing import Any

import torch
from torch import Tensor

from ssl_core.optim.momentum import MomentumOptimizer

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the iteration x ← ax + b(xxᵀ)x + c(xxᵀ)²x: steep at 0, near 1 at 1
_EPSILON = 1e-7


class Muon(MomentumOptimizer):
    """Updates every weight by a matrix whose singular values are all about 1.

    A weight of more dimensions is reshaped to a matrix, outputs × the rest. The arithmetic is that of torch.optim.Muon,
    which accepts matrices only: lr·√max(1, rows/columns), and a decoupled decay of lr·weight_decay. Groups with
    `adapt=False` (norms and biases) are updated by the plain momentum.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        nesterov: bool = True,
        steps: int = 5,
        adapt: bool = True,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, defaults | {"steps": steps, "adapt": adapt})

    def update(self, ws: list[Tensor], gs: list[Tensor], vs: list[Tensor], group: dict[str, Any]) -> None:
        for w, g, v in zip(ws, gs, vs, strict=True):
            self._update_parameter(w, g, v, group)

    def _update_parameter(self, w: Tensor, g: Tensor, v: Tensor, group: dict[str, Any]) -> None:
        v.mul_(group["momentum"]).add_(g)
        update, lr = g.add(v, alpha=group["momentum"]) if group["nesterov"] else v, group["lr"]
        w.mul_(1 - lr * group["weight_decay"])
        if not group["adapt"]:
            w.sub_(update, alpha=lr)
            return
        rows = update.reshape(len(update), -1)
        stretch = max(1.0, rows.shape[0] / rows.shape[1]) ** 0.5
        w.sub_(orthogonalise(rows, group["steps"]).reshape(w.shape), alpha=lr * stretch)


def orthogonalise(matrix: Tensor, steps: int) -> Tensor:
    """Return the matrix M×N (of any shape, in fp32) with its singular values near 1, between 0.7 and 1.2.

    Newton–Schulz on the smaller Gram matrix: the polynomials of all steps are multiplied there and applied at the end,
    which for wide matrices costs half of the published iteration. Singular values below about 3.4^-steps of the largest
    stay small.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonalise(matrix.T, steps).T
    x = matrix / (matrix.norm() + _EPSILON)  # M×N, no singular value above 1
    gram = x @ x.T  # M×M, as are all matrices below
    product = polynomial = _apply_polynomial(gram)
    for _ in range(steps - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _apply_polynomial(gram)
        product = polynomial @ product
    return product @ x


def _apply_polynomial(gram: Tensor) -> Tensor:
    polynomial = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
    polynomial.diagonal().add_(_A)
    return polynomial
