"""Label transfer: labels for images without one, by the vote of their nearest labelled neighbours.

The vote is that of kNN evaluation (`ssl_core.evaluation.knn`): each neighbour has exp(similarity / temperature).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.encoder.search.nearest import NONE, Rows, Vectors, find_nearest, take

Labels = NDArray[np.int32]  # N; below 0: none


class Transferred(NamedTuple):
    """For each of M rows the label with the greatest vote, and its share of the votes, 0 to 1."""

    labels: Labels
    confidences: Vectors


def transfer(vectors: Vectors, labels: Labels, rows: Rows, k: int, temperature: float) -> Transferred:
    """Return the labels of M rows by their k nearest labelled others. Without any, the label is -1.

    Of equal votes the lower label has it.
    """
    found, similarities = find_nearest(vectors, take(vectors, rows), k, allowed=labels >= 0, own=rows)
    winners = [
        _vote(labels[near[near != NONE]], values[near != NONE], temperature)
        for near, values in zip(found, similarities, strict=True)
    ]
    chosen, shares = zip(*winners, strict=True) if winners else ((), ())
    return Transferred(np.array(chosen, np.int32), np.array(shares, np.float32))


def _vote(labels: Labels, similarities: Vectors, temperature: float) -> tuple[int, float]:
    if not len(labels):
        return -1, 0.0
    weights = np.exp((similarities.astype(np.float64) - similarities.max()) / temperature)
    names, places = np.unique(labels, return_inverse=True)
    votes = np.bincount(places, weights)
    best = int(votes.argmax())
    return int(names[best]), float(votes[best] / votes.sum())
