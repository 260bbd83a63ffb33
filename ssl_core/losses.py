"""Losses: pure functions of tensors, computed in fp32 whatever the network ran in."""

from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run `loss` outside autocast, on at least fp32 tensors."""

    @wraps(loss)
    def wrapped(*tensors: Tensor, **settings: float) -> Tensor:
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*(t if t.dtype == torch.float64 else t.float() for t in tensors), **settings)

    return wrapped


@full_precision
def nt_xent(z1: Tensor, z2: Tensor, *, temperature: float) -> Tensor:
    """Return SimCLR's NT-Xent (arXiv:2002.05709, equation 1) of two views' embeddings, N×D each; they need not be unit.

    Of each of the 2N, the other view is the positive and the 2(N−1) remaining are the negatives; only itself is masked.
    The mean over all 2N, so about ln(2N−1) at the start. google-research/simclr adds two means: twice this value.
    """
    z = F.normalize(torch.cat([z1, z2]), dim=1)  # 2N×D
    similarity = (z @ z.T) / temperature  # 2N×2N
    similarity.fill_diagonal_(-torch.inf)
    positives = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(similarity, positives)


@full_precision
def distillation(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
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
