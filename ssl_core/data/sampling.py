"""Sampling: rows of a dataset chosen by counter-based random numbers, from a seed."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import rng

Rows = NDArray[np.int64]


def draw_evenly(labels: Rows, count: int, stream: int) -> Rows:
    """Return `count` positions in `labels`, as evenly from its values as they allow, in an order drawn by the stream.

    A value with too few gives all it has; what does not divide goes to values drawn at random.
    """
    shuffled = rng.permutation(stream, len(labels)).numpy()
    drawn = labels[shuffled]
    rank = np.empty(len(labels), dtype=np.int64)  # how many of the same value come before
    values = np.unique(labels)
    for value in values:
        mine = drawn == value
        rank[mine] = np.arange(mine.sum())
    turn = rng.permutation(rng.stream(stream, 1), len(values)).numpy()
    order = np.lexsort((turn[np.searchsorted(values, drawn)], rank))
    return shuffled[order[:count]]


def order_by_class(labels: Rows, stream: int) -> Rows:
    """Return all positions in `labels`, class after class, in an order drawn by the stream within each."""
    shuffled = rng.permutation(stream, len(labels)).numpy()
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def hold_out(labels: Rows, share: float, stream: int) -> NDArray[np.bool_]:
    """Return a mask of N that keeps back the share of every class, to within one image; at least one of all."""
    count = len(labels)
    kept = np.zeros(count, dtype=np.bool_)
    steps = np.floor(np.arange(count + 1) * max(share, 1 / count) + 0.5)
    kept[order_by_class(labels, stream)[np.diff(steps) > 0]] = True
    return kept


def shuffle_epoch(seed: int, epoch: int, length: int) -> Tensor:
    """Return int64 0 … length-1 in the epoch's order."""
    return rng.permutation(rng.stream(seed, rng.Stream.EPOCH, epoch), length)
