"""Sampling: stratified draws, hold-out sets and epoch order, by counter-based random numbers."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import rng

Rows = NDArray[np.int64]


def draw_evenly(labels: Rows, count: int, stream: int) -> Rows:
    """Return `count` positions in `labels`, as evenly from its classes as they allow, in an order drawn by the stream.

    A class with too few gives all of them; a remainder goes to classes drawn at random.
    """
    shuffled = rng.permutation(stream, len(labels)).numpy()
    values, classes, sizes = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    rank = np.empty(len(labels), dtype=np.int64)  # the number of the same class that come before
    rank[np.argsort(classes, kind="stable")] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    turn = rng.permutation(rng.stream(stream, 1), len(values)).numpy()
    order = np.lexsort((turn[classes], rank))
    return shuffled[order[:count]]


def order_by_class(labels: Rows, stream: int) -> Rows:
    """Return all positions in `labels`, class after class, in an order drawn by the stream within each."""
    shuffled = rng.permutation(stream, len(labels)).numpy()
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def hold_out(labels: Rows, share: float, stream: int) -> NDArray[np.bool_]:
    """Return a mask of N that holds out the share of every class, to within one image, and at least one image."""
    count = len(labels)
    held_out = np.zeros(count, dtype=np.bool_)
    steps = np.floor(np.arange(count + 1) * max(share, 1 / count) + 0.5)
    held_out[order_by_class(labels, stream)[np.diff(steps) > 0]] = True
    return held_out


def shuffle_epoch(seed: int, epoch: int, length: int) -> Tensor:
    """Return int64 0 … length-1 in the order of the epoch."""
    return rng.permutation(rng.stream(seed, rng.Stream.EPOCH, epoch), length)
