"""Self-supervised losses: pure functions of tensors, computed in fp32 whatever the autocast dtype.

The contrastive ones take all images' embeddings, and `images`, a slice of them: the loss is then the mean over the rows
of these images alone, each against all columns. Of equal shares, the mean of their losses is the loss of all images.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.methods import tiled

MOST_DENSE_ROWS = 4096  # of a square matrix of similarities at once: with more of them a step is not slower in tiles
_ALL = slice(None)


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run `loss` outside autocast, on at least fp32 tensors."""

    @wraps(loss)
    def wrapped(*tensors: Tensor, **settings: Any) -> Tensor:
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*(t if t.dtype == torch.float64 else t.float() for t in tensors), **settings)

    return wrapped


@full_precision
def nt_xent(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float,
    same_view_negatives: bool = True,
    decoupled: bool = False,
    images: slice = _ALL,
) -> Tensor:
    """Return SimCLR's NT-Xent (arXiv:2002.05709, equation 1) of two views' embeddings, N×D each; they need not be unit.

    Of each of the 2N, the other view is the positive and the 2(N−1) remaining are the negatives; only itself is masked.
    The mean over all 2N, so about ln(2N−1) at the start. google-research/simclr adds two means: twice this value.
    Without `same_view_negatives` the N−1 negatives are of the other view alone. `decoupled` leaves the positive out of
    the denominator (DCL, arXiv:2110.06848, equation 4). The mean is over both views of n `images`, all by default.
    """
    count = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)  # 2N×D
    columns = torch.arange(2 * count, device=z.device)
    rows = _select(columns, images)  # 2n
    others = (rows + count) % (2 * count)

    def mask(part: slice) -> Tensor:
        masked = rows[part, None] == columns
        if not same_view_negatives:
            masked = masked | ((rows[part, None] < count) == (columns < count))
        if decoupled:
            masked = masked | (others[part, None] == columns)
        return masked

    if _is_tiled(rows, z):
        positive = (z[:count][images] * z[count:][images]).sum(1).mean() / temperature
        return tiled.mean_logsumexp(_select(z, images), z, temperature=temperature, mask=mask) - positive
    similarity = (_select(z, images) @ z.T) / temperature  # 2n×2N
    positive = similarity.gather(1, others[:, None])[:, 0]  # whose gradient a GPU computes without a sort
    return (similarity.masked_fill(mask(_ALL), -torch.inf).logsumexp(1) - positive).mean()


@full_precision
def info_nce(q: Tensor, k: Tensor, queue: Tensor, *, temperature: float, images: slice = _ALL) -> Tensor:
    """Return MoCo's InfoNCE (arXiv:1911.05722, equation 1): q and k, N×D, of the same images, K×D negatives.

    They need not be unit. With an empty queue the negatives of a q are the k of the other images (MoCo v3,
    arXiv:2104.02057, equation 1); there q may be n×D, of `images` alone.
    """
    q, k, queue = (F.normalize(rows, dim=1) for rows in (q, k, queue))
    if len(queue):
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1)  # N×(1+K)
        return -F.log_softmax(logits / temperature, dim=1)[:, 0].mean()
    if _is_tiled(q, k):
        return tiled.mean_logsumexp(q, k, temperature=temperature) - (q * k[images]).sum(1).mean() / temperature
    return F.cross_entropy(q @ k.T / temperature, torch.arange(len(k), device=q.device)[images])


@full_precision
def soft_cross_entropy(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return T²·cross-entropy of the student's class probabilities with the teacher's, from logits N×C divided by T.

    The mean over N. SimCLRv2 (arXiv:2006.10029), equation 2; the T² keeps gradients alike for every temperature
    (Hinton et al. 2015, arXiv:1503.02531, section 2).
    """
    target = F.softmax(teacher / temperature, dim=1)
    return temperature**2 * F.cross_entropy(student / temperature, target)


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Return −cos(p, z), the mean over N pairs of N×D rows (SimSiam, arXiv:2011.10566, equation 1); −1 is agreement."""
    return -F.cosine_similarity(p, z, dim=1).mean()


@full_precision
def barlow_twins(z1: Tensor, z2: Tensor, *, redundancy: float) -> Tensor:
    """Return Barlow Twins' loss (arXiv:2103.03230, equation 1) of two views' embeddings N×D, as the authors' code.

    The target of their cross-correlation over the batch is the identity; `redundancy` is λ. A sum over D², not a mean.
    """
    first, second = (F.batch_norm(z, None, None, training=True) for z in (z1, z2))
    correlation = first.T @ second / len(z1)  # D×D
    on_diagonal = (correlation.diagonal() - 1).pow(2).sum()
    return on_diagonal + redundancy * _off_diagonal(correlation).pow(2).sum()


@full_precision
def vicreg(z1: Tensor, z2: Tensor, *, invariance: float, variance: float, covariance: float) -> Tensor:
    """Return VICReg's loss (arXiv:2105.04906, equation 6) of two views' embeddings N×D, as the authors' code.

    Mean squared distance; hinge on each dimension's standard deviation below 1, averaged over the two views; squared
    covariances off the diagonal, over D, summed over the two views.
    """
    distance = F.mse_loss(z1, z2)
    hinge = sum((1 - (z.var(0) + 1e-4).sqrt()).relu().mean() for z in (z1, z2)) / 2
    centred = (z - z.mean(0) for z in (z1, z2))
    spread = sum(_off_diagonal(z.T @ z / (len(z) - 1)).pow(2).sum() / z.shape[1] for z in centred)
    return invariance * distance + variance * hinge + covariance * spread


@full_precision
def dino_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the cross-entropy of the student's softmax with the teacher's, the mean over N rows of logits N×C.

    Both are divided by their temperatures already. Source: Hinton et al. (arXiv:1503.02531); DINO (arXiv:2104.14294),
    equation 2.
    """
    return -(teacher.softmax(1) * student.log_softmax(1)).sum(1).mean()


def _select(values: Tensor, images: slice) -> Tensor:
    """The 2n of 2N values that are of these images: all of view 1 first."""
    return values.unflatten(0, (2, -1))[:, images].flatten(0, 1)


def _is_tiled(rows: Tensor, columns: Tensor) -> bool:
    """Whether a matrix of so many rows and columns is too large to be computed at once."""
    return len(rows) * len(columns) > MOST_DENSE_ROWS**2


def _off_diagonal(square: Tensor) -> Tensor:
    """The D·(D−1) values off the diagonal of D×D."""
    size = len(square)
    return square.flatten()[:-1].view(size - 1, size + 1)[:, 1:]
