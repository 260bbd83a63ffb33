"""The kNN classifier: an exact, weighted vote by cosine similarity, in chunks."""

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK_BYTES = 64 * 2**20  # of similarities per chunk


def compute_votes(
    train_features: Tensor, train_labels: Tensor, features: Tensor, classes: int, k: int, temperature: float
) -> Tensor:
    """Return the votes of each class for each row, float32 M×C; 0 is no vote, and the greatest single vote is 1.

    train_features: N×D, train_labels: int64 N, features: M×D. Each of the k nearest (at most N) by cosine votes with
    exp(similarity / temperature). Source: Wu et al. (arXiv:1805.01978), section 3.4.
    """
    train = F.normalize(train_features.float(), dim=1)
    k = min(k, len(train))
    votes = []
    for chunk in features.split(max(1, _CHUNK_BYTES // (4 * len(train)))):
        similarity = F.normalize(chunk.float(), dim=1) @ train.T
        nearest = similarity.topk(k, dim=1)
        # Subtracting the greatest exponent cannot overflow, and scales all votes of a row alike.
        weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
        votes.append(weights.new_zeros(len(chunk), classes).scatter_add_(1, train_labels[nearest.indices], weights))
    return torch.cat(votes)


def compute_top1(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    labels: Tensor,
    classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    """Return the top-1 accuracy of the vote, 0 to 1. features: M×D, labels: int64 M."""
    predicted = compute_votes(train_features, train_labels, features, classes, k, temperature).argmax(1)
    return (predicted == labels).double().mean().item()
