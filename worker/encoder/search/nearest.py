"""Nearest neighbours by cosine similarity, exact: products with all vectors, in chunks.

The products are torch's, which compute in as many threads as the calling thread has set; numpy's are not limited so.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vectors = NDArray[np.float32]  # N×D, of unit length, or zero
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

NONE = -1  # a row that is none, where fewer than k are allowed
_CHUNK_BYTES = 64 * 2**20  # of similarities computed at a time


def normalise(vectors: NDArray[np.floating]) -> Vectors:
    """Return the vectors N×D with unit length, float32; a zero vector stays zero."""
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    return (exact / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def take(vectors: Vectors, rows: Rows) -> Vectors:
    """Return a copy of these rows; other threads go on while pages of a mapped file are read."""
    return torch.from_numpy(vectors).index_select(0, torch.from_numpy(rows)).numpy()


def find_nearest(
    vectors: Vectors, queries: Vectors, k: int, allowed: Mask | None = None, own: Rows | None = None
) -> tuple[Rows, Vectors]:
    """Return the rows M×k of the nearest vectors to each of M queries, nearest first, and their similarities.

    allowed: rows N that may be found; None: all. own: for each query a row that it must not find. Of equally
    similar ones the lower row comes first; which of them is the k-th is open. Where there are fewer than k, the rest is
    NONE with similarity -inf.
    """
    banned = None if allowed is None else torch.from_numpy(~allowed)
    step = max(1, _CHUNK_BYTES // (4 * max(1, len(vectors))))
    parts = [
        _find(vectors, queries[start : start + step], k, banned, None if own is None else own[start : start + step])
        for start in range(0, len(queries), step)
    ]
    empty = (np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    rows, similarities = zip(*parts, strict=True) if parts else ((empty[0],), (empty[1],))
    return np.concatenate(rows), np.concatenate(similarities)


def sort_found(rows: Rows, similarities: Vectors) -> tuple[Rows, Vectors]:
    """Return each line of M×k by falling similarity, and equal ones by row."""
    order = np.lexsort((rows, -similarities), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)


def measure_recall(found: Rows, exact: Rows) -> float:
    """Return the fraction of the exact neighbours M×k that were found, M×k."""
    hits = sum(len(np.intersect1d(one, other)) for one, other in zip(found, exact, strict=True))
    return hits / max(1, exact.size)


def _find(vectors: Vectors, queries: Vectors, k: int, banned: Tensor | None, own: Rows | None) -> tuple[Rows, Vectors]:
    found = torch.from_numpy(queries) @ torch.from_numpy(vectors).T
    if banned is not None:
        found.masked_fill_(banned, -torch.inf)
    if own is not None:
        found[torch.arange(len(found)), torch.from_numpy(own)] = -torch.inf
    values, rows = (part.numpy() for part in found.topk(min(k, found.shape[1]), dim=1))
    rows = np.where(np.isneginf(values), NONE, rows)
    rows, values = sort_found(rows, values)
    missing = ((0, 0), (0, k - rows.shape[1]))
    return np.pad(rows, missing, constant_values=NONE), np.pad(values, missing, constant_values=-np.inf)
