"""Muon: momentum orthogonalised by Newton–Schulz iteration (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_core.optim.momentum import MomentumOptimizer

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the iteration x ← ax + b(xxᵀ)x + c(xxᵀ)²x: steep at 0, near 1 at 1
_EPSILON = 1e-7
_MOST_PADDING = 8  # how many times as wide as a matrix its batch may be


class Muon(MomentumOptimizer):
    """Updates every weight by a matrix whose singular values are all about 1.

    A weight of more dimensions is reshaped to a matrix, outputs × the rest. The arithmetic is that of torch.optim.Muon,
    which accepts matrices only: lr·√max(1, rows/columns), and a decoupled decay of lr·weight_decay. Groups with
    `adapt=False` (norms and biases) are updated by the plain momentum.

    On a GPU matrices are orthogonalised in batches, in `dtype`; on a CPU one by one, in fp32.
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
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, defaults | {"steps": steps, "adapt": adapt})
        self._dtype = dtype

    def update(self, ws: list[Tensor], gs: list[Tensor], vs: list[Tensor], group: dict[str, Any]) -> None:
        if ws[0].is_cuda:
            self._update_together(ws, gs, vs, group)
            return
        # On a CPU a parameter stays in the cache between the operations on it.
        for w, g, v in zip(ws, gs, vs, strict=True):
            self._update_parameter(w, g, v, group)

    def _update_together(self, ws: list[Tensor], gs: list[Tensor], vs: list[Tensor], group: dict[str, Any]) -> None:
        momentum, lr = group["momentum"], group["lr"]
        torch._foreach_mul_(vs, momentum)
        torch._foreach_add_(vs, gs)
        updates = list(torch._foreach_add(gs, vs, alpha=momentum)) if group["nesterov"] else vs
        torch._foreach_mul_(ws, 1 - lr * group["weight_decay"])
        if not group["adapt"]:
            torch._foreach_sub_(ws, updates, alpha=lr)
            return
        matrices = orthogonalise_together([_to_matrix(update) for update in updates], group["steps"], self._dtype)
        for w, matrix in zip(ws, matrices, strict=True):
            w.sub_(_from_matrix(matrix, w), alpha=lr * _stretch(matrix))

    def _update_parameter(self, w: Tensor, g: Tensor, v: Tensor, group: dict[str, Any]) -> None:
        v.mul_(group["momentum"]).add_(g)
        update, lr = g.add(v, alpha=group["momentum"]) if group["nesterov"] else v, group["lr"]
        w.mul_(1 - lr * group["weight_decay"])
        if not group["adapt"]:
            w.sub_(update, alpha=lr)
            return
        rows = update.reshape(len(update), -1)
        w.sub_(orthogonalise(rows, group["steps"]).reshape(w.shape), alpha=lr * _stretch(rows))


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


def orthogonalise_together(matrices: Sequence[Tensor], steps: int, dtype: torch.dtype) -> list[Tensor]:
    """Return what `orthogonalise` does for each matrix, of any shapes, in `dtype`, by batches of nearly equal shapes.

    By the published iteration, as in torch.optim.Muon: the products of polynomials above are too inexact in bf16.
    """
    wide = [matrix if len(matrix) <= matrix.shape[1] else matrix.mT for matrix in matrices]
    found: dict[int, Tensor] = {}
    for members in _batch([matrix.shape for matrix in wide]):
        rows, columns = wide[members[0]].shape
        batch = torch.zeros(len(members), rows, columns, dtype=dtype, device=wide[0].device)
        parts = [part[:, : wide[index].shape[1]] for part, index in zip(batch, members, strict=True)]
        torch._foreach_copy_(parts, [wide[index] for index in members])
        for index, x in zip(members, _iterate(batch, steps), strict=True):
            found[index] = x[:, : wide[index].shape[1]]
    return [found[index] if wide[index] is matrix else found[index].mT for index, matrix in enumerate(matrices)]


def _batch(shapes: Sequence[torch.Size]) -> list[list[int]]:
    """Group the positions of shapes M×N by M, the widest first; the others are padded by columns of zeros.

    These stay zero, and change nothing but the order of sums. None is padded to more than `_MOST_PADDING` its width.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(shapes)), key=lambda index: (shapes[index][0], -shapes[index][1])):
        rows, columns = shapes[index]
        widest = shapes[batches[-1][0]] if batches else (0, 0)
        if rows == widest[0] and widest[1] <= _MOST_PADDING * columns:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _iterate(x: Tensor, steps: int) -> Tensor:
    """Newton–Schulz on matrices B×M×N, M ≤ N, which are scaled in place."""
    x /= (
        torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        + _EPSILON
    )
    for _ in range(steps):
        gram = x @ x.mT  # B×M×M
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, polynomial, x, beta=_A)
    return x


def _apply_polynomial(gram: Tensor) -> Tensor:
    polynomial = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
    polynomial.diagonal().add_(_A)
    return polynomial


def _stretch(matrix: Tensor) -> float:
    return float(max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5)


def _is_channels_last(weight: Tensor) -> bool:
    return weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)


def _to_matrix(weight: Tensor) -> Tensor:
    """The weight as outputs × the rest, without a copy: in which order the columns are is of no matter."""
    return (weight.permute(0, 2, 3, 1) if _is_channels_last(weight) else weight).reshape(len(weight), -1)


def _from_matrix(matrix: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `_to_matrix`, for a weight of this shape and memory format."""
    if not _is_channels_last(weight):
        return matrix.reshape(weight.shape)
    outputs, inputs, height, width = weight.shape
    return matrix.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
