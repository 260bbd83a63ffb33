"""Coverage: k-centre greedy selection, which takes the image that is farthest from all that were taken before.

Source: Gonzalez, "Clustering to minimize the maximum intercluster distance" (1985); as active learning, Sener and
Savarese (arXiv:1708.00489). Distances are 1 minus cosine similarity.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worker.encoder.search.nearest import Mask, Rows, Vectors, take

_CHUNK_BYTES = 64 * 2**20  # of similarities computed at a time


class Coverage(NamedTuple):
    """The rows taken, in order, and after each of them the greatest distance of a candidate from the nearest taken."""

    rows: Rows
    radii: Vectors


def select(vectors: Vectors, candidates: Mask, count: int, covered: Rows, start: int | None = None) -> Coverage:
    """Take `count` of the candidates N, or all if there are fewer; of equally far ones the lowest row.

    covered: rows that were taken before, such as those with a label. start: the candidate to take first; None: the one
    farthest from the covered rows, or the lowest if there are none.
    """
    rows = np.flatnonzero(candidates)
    if not len(rows):
        return Coverage(np.empty(0, np.int64), np.empty(0, np.float32))
    first, last = int(rows[0]), int(rows[-1]) + 1  # what is beyond them is not read
    part = torch.from_numpy(vectors[first:last])
    nearest = _measure_nearest(part, vectors, covered)  # similarity of each row to what is taken
    nearest[torch.from_numpy(~candidates[first:last])] = torch.inf  # never the farthest
    taken, radii = [], []
    for number in range(min(count, len(rows))):
        row = int(nearest.argmin()) if number or start is None else start - first
        nearest = torch.maximum(nearest, part @ part[row])
        nearest[row] = torch.inf
        least = float(nearest.min())
        taken.append(first + row)
        radii.append(max(0.0, 1 - least) if np.isfinite(least) else 0.0)
    return Coverage(np.array(taken, np.int64), np.array(radii, np.float32))


def _measure_nearest(part: Tensor, vectors: Vectors, covered: Rows) -> Tensor:
    """Return the similarity of each row of `part` to the nearest covered row, -inf where there is none."""
    nearest = torch.full((len(part),), -torch.inf)
    step = max(1, _CHUNK_BYTES // (4 * len(part)))
    for start in range(0, len(covered), step):
        found = part @ torch.from_numpy(take(vectors, covered[start : start + step])).T
        nearest = torch.maximum(nearest, found.amax(1))
    return nearest
