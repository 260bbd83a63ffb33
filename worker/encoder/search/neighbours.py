"""The graph of neighbours: of each vector its nearest others, from which duplicates and outliers follow.

rows: N×K, nearest first, NONE where there are fewer; similarities: N×K.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.encoder.search.inverted_lists import InvertedLists
from worker.encoder.search.nearest import NONE, Mask, Rows, Vectors, find_nearest

K = 32  # neighbours of each vector
_BUILT = 4096  # vectors at a time
_READ = 65_536  # lines at a time

Graph = NDArray[np.int32]  # N×K


class Part(NamedTuple):
    """The lines of the graph from the row `start` on."""

    start: int
    rows: Graph
    similarities: Vectors


class Pairs(NamedTuple):
    """Pairs of rows P×2, the lower row first, with the greatest similarity first; `total` is how many there are."""

    rows: Rows
    similarities: Vectors
    total: int


def build_graph(vectors: Vectors, lists: InvertedLists | None = None) -> Iterator[Part]:
    """Yield the graph of the vectors, exact or by their inverted lists."""
    for start in range(0, len(vectors), _BUILT):
        own = np.arange(start, min(start + _BUILT, len(vectors)))
        queries = np.ascontiguousarray(vectors[start : start + _BUILT])
        search = find_nearest if lists is None else lists.search
        rows, similarities = search(vectors, queries, K, own=own)
        yield Part(start, rows.astype(np.int32), similarities)


def find_duplicates(
    graph: Graph, similarities: Vectors, threshold: float, limit: int, splits: NDArray[np.int8] | None = None
) -> Pairs:
    """Return the `limit` most similar pairs of neighbours whose similarity is at least the threshold.

    splits: N; then only pairs in two different ones. Of more than K duplicates of one image not every pair is in the
    graph, but each image is in some.
    """
    kept = Pairs(np.empty((0, 2), np.int64), np.empty(0, np.float32), 0)
    for start in range(0, len(graph), _READ):
        kept = _keep_most_similar(kept, _find_pairs(graph, similarities, start, threshold, splits), limit)
    return kept


def count_listed(similarities: Vectors, threshold: float) -> int:
    """Return how many neighbours have at least this similarity: `find_duplicates` takes about a second per million."""
    parts = (similarities[start : start + _READ] for start in range(0, len(similarities), _READ))
    return sum(int(np.count_nonzero(part >= threshold)) for part in parts)


def measure_outliers(similarities: Vectors, k: int) -> Vectors:
    """Return the mean cosine distance of each row N to its k nearest others, or to all if there are fewer."""
    scores = np.empty(len(similarities), np.float32)
    for start in range(0, len(similarities), _READ):
        part = similarities[start : start + _READ, :k]
        exists = np.isfinite(part)
        distances = np.where(exists, 1 - part, 0).sum(1)
        scores[start : start + _READ] = distances / np.maximum(exists.sum(1), 1)
    return scores


def find_outliers(similarities: Vectors, k: int, limit: int, allowed: Mask | None = None) -> tuple[Rows, Vectors]:
    """Return the `limit` allowed rows that are farthest from their k nearest, the farthest first, and the distances."""
    scores = measure_outliers(similarities, k)
    rows = np.arange(len(scores)) if allowed is None else np.flatnonzero(allowed)
    order = np.lexsort((rows, -scores[rows]))[:limit]
    return rows[order], scores[rows[order]]


def _find_pairs(
    graph: Graph, similarities: Vectors, start: int, threshold: float, splits: NDArray[np.int8] | None
) -> Pairs:
    """Return the pairs of some lines of the graph, each once: not again from the line of its higher row."""
    lines, values = np.asarray(graph[start : start + _READ]), similarities[start : start + _READ]
    line, place = np.nonzero((values >= threshold) & (lines != NONE))
    one, other, found = (line + start).astype(np.int64), lines[line, place].astype(np.int64), values[line, place]
    keep = np.empty(len(one), bool)
    for first in range(0, len(one), _READ):
        part = slice(first, first + _READ)
        keep[part] = one[part] < other[part]
        higher = first + np.flatnonzero(~keep[part])  # kept if the lower row does not list them
        listed = (graph[other[higher]] == one[higher, None]) & (similarities[other[higher]] >= threshold)
        keep[higher] = ~listed.any(1)
    if splits is not None:
        keep &= splits[one] != splits[other]
    rows = np.stack([np.minimum(one, other), np.maximum(one, other)], 1)[keep]
    return Pairs(rows, found[keep], int(keep.sum()))


def _keep_most_similar(kept: Pairs, more: Pairs, limit: int) -> Pairs:
    rows, values = np.concatenate([kept.rows, more.rows]), np.concatenate([kept.similarities, more.similarities])
    first = _choose_first(rows, values, limit)
    order = first[np.lexsort((rows[first, 1], rows[first, 0], -values[first]))]
    return Pairs(rows[order], values[order], kept.total + more.total)


def _choose_first(rows: Rows, values: Vectors, limit: int) -> Rows:
    """Return which are the first `limit` pairs, in any order; sorting all of them would take longest."""
    if len(values) <= limit:
        return np.arange(len(values))
    least = np.partition(values, len(values) - limit)[len(values) - limit]
    above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
    missing = limit - len(above)
    place = (rows[equal, 0] << 32) | rows[equal, 1]
    return np.concatenate([above, equal[np.argpartition(place, missing - 1)[:missing]]])
