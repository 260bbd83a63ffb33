"""The k-nearest-neighbour classifier: a weighted vote on unit features, exact, in chunks."""

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK_BYTES = 64 * 2**20  # of similarities at a time


def votes(
    train_features: Tensor, train_labels: Tensor, features: Tensor, classes: int, k: int, temperature: float
) -> Tensor:
    """Return what each class gets for each row, float32 M×C; 0 is no vote, and the greatest single vote is 1.

    train_features: N×D, train_labels: int64 N, features: M×D. Each of the k nearest (at most N) by cosine votes with
    exp(similarity / temperature). Source: Wu et al. (arXiv:1805.01978), section 3.4.
    """
    train = F.normalize(train_features.float(), dim=1)
    k = min(k, len(train))
    given = []
    for chunk in features.split(max(1, _CHUNK_BYTES // (4 * len(train)))):
        similarity = F.normalize(chunk.float(), dim=1) @ train.T
        nearest = similarity.topk(k, dim=1)
        # The greatest is taken off each exponent: it changes no vote and cannot overflow.
        weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
        given.append(weights.new_zeros(len(chunk), classes).scatter_add_(1, train_labels[nearest.indices], weights))
    return torch.cat(given)


def top1(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    labels: Tensor,
    classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    """Return the share of rows whose vote is their label."""
    predicted = votes(train_features, train_labels, features, classes, k, temperature).argmax(1)
    return (predicted == labels).double().mean().item()
