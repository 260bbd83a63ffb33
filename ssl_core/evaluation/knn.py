"""The kNN classifier: an exact, weighted vote by cosine similarity, in chunks."""

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 2**30}  # of similarities per chunk, by the type of the device
_CHUNK_ROWS = 64  # at least: every chunk reads all training features, and a matrix product of few rows waits for them


def compute_votes(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    classes: int,
    k: int,
    temperature: float,
    *,
    overwrite: bool = False,
) -> Tensor:
    """Return the votes of each class for each row, float32 M×C; 0 is no vote, and the greatest single vote is 1.

    train_features: N×D, train_labels: int64 N, features: M×D. Each of the k nearest (at most N) by cosine votes with
    exp(similarity / temperature). Source: Wu et al. (arXiv:1805.01978), section 3.4. With `overwrite`, float32
    `train_features` are scaled to unit length in place, which saves a copy of them.
    """
    train = train_features.float()
    train = F.normalize(train, dim=1, out=train if overwrite else None)
    chunks = features.split(max(_CHUNK_ROWS, _CHUNK_BYTES[train.device.type] // (4 * len(train))))
    return torch.cat([_vote(train, train_labels, chunk, classes, min(k, len(train)), temperature) for chunk in chunks])


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


def _vote(train: Tensor, labels: Tensor, features: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    """The votes of one chunk; its similarities are freed before those of the next are computed."""
    nearest = (F.normalize(features.float(), dim=1) @ train.T).topk(k, dim=1)
    # Subtracting the greatest exponent cannot overflow, and scales all votes of a row alike.
    weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
    return _sum_by_class(weights, labels[nearest.indices], classes)


def _sum_by_class(weights: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the sum of the weights M×k of each class, M×C."""
    votes = weights.new_zeros(len(weights), classes)
    if weights.device.type == "cpu":
        return votes.scatter_add_(1, labels, weights)
    # On a GPU `scatter_add_` adds in an order that differs from run to run; `index_put_` sorts first.
    rows = torch.arange(len(weights), device=weights.device)[:, None].expand_as(labels)
    return votes.index_put_((rows, labels), weights, accumulate=True)
