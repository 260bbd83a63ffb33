"""Inverted lists (faiss's IVF): approximate neighbours among many vectors, on disk and mapped into memory.

The vectors are in lists by their nearest centroid, as float16; a search reads the lists of the nearest centroids, and
orders what it finds by the exact vectors. Reading all lists is exact, so that a recall can always be reached.
"""

from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch

from worker.encoder.search.nearest import NONE, Mask, Rows, Vectors, find_nearest, measure_recall, sort_found, take

RECALL = 0.95  # at 10, which `tune` reaches
RECALL_AT = 10
_POINTS_PER_CENTROID = 64  # of the sample that the centroids are computed from
_ITERATIONS = 10
_CANDIDATES = 2  # for each neighbour asked for: their order by float16 is not exact
_FEWEST_CANDIDATES = 32
_ADDED = 65_536  # vectors at a time
_FIRST_PROBES = 4
_RANKED_BYTES = 64 * 2**20  # of candidates read at a time
_MOST_WIDENED = 8  # times the usual lists, where not all rows are allowed
_FEW_ALLOWED = 20_000  # rows that are compared with the query without the lists, which may not have any of them


class Tuned(NamedTuple):
    """The number of lists that a search reads, and the recall that was measured with it."""

    probes: int
    recall: float


def count_lists(vectors: int) -> int:
    """Return how many lists so many vectors are in: four times the square root."""
    return max(1, int(4 * vectors**0.5))


class InvertedLists:
    """The lists of one set of vectors."""

    def __init__(self, index: Any, probes: int = 1) -> None:
        self._index = index
        self.probes = probes

    @classmethod
    def build(cls, vectors: Vectors, seed: int) -> "InvertedLists":
        """Put the vectors N×D into lists, in the threads that faiss is set to. The same seed gives the same lists."""
        count = count_lists(len(vectors))
        quantizer = faiss.IndexFlatIP(vectors.shape[1])
        half = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, vectors.shape[1], count, half, faiss.METRIC_INNER_PRODUCT, False
        )
        index.cp.seed, index.cp.niter, index.cp.spherical = seed, _ITERATIONS, True
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = _POINTS_PER_CENTROID
        index.train(take(vectors, draw_rows(len(vectors), _POINTS_PER_CENTROID * count, seed)))
        for start in range(0, len(vectors), _ADDED):
            index.add(np.ascontiguousarray(vectors[start : start + _ADDED]))
        return cls(index)

    @classmethod
    def open(cls, path: Path, probes: int) -> "InvertedLists":
        """Open a file, whose lists are mapped, not read. Raises OSError when it cannot be read."""
        try:
            index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
            lists: Any = faiss.downcast_InvertedLists(index.invlists)
        except RuntimeError as error:
            raise OSError(f"{path.name} cannot be read: {error}") from error
        lists.prefetch_nthread = 0  # it would start 32 threads for each search
        return cls(index, probes)

    def serialise(self) -> memoryview:
        """Return the bytes of a file that `open` opens."""
        return faiss.serialize_index(self._index).data

    def __len__(self) -> int:
        return int(self._index.nlist)

    def search(
        self, vectors: Vectors, queries: Vectors, k: int, allowed: Mask | None = None, own: Rows | None = None
    ) -> tuple[Rows, Vectors]:
        """Return what `find_nearest` does of the same arguments, or nearly."""
        options: dict[str, Any] = {"nprobe": self.probes}
        if allowed is not None and (few := np.flatnonzero(allowed)).size <= _FEW_ALLOWED:
            return _search_few(vectors, queries, k, few, own)
        if allowed is not None:
            chosen: Any = np.packbits(allowed, bitorder="little")
            select: Any = faiss.IDSelectorBitmap  # its Python class takes an array
            widened = min(_MOST_WIDENED, max(1, len(allowed) // max(1, int(allowed.sum()))))
            options = {"nprobe": min(len(self), self.probes * widened), "sel": select(chosen)}
        count = min(len(vectors), max(_CANDIDATES * k, _FEWEST_CANDIDATES) + (own is not None))
        parameters = faiss.SearchParametersIVF(**options)
        candidates = self._index.search(np.ascontiguousarray(queries), count, params=parameters)[1]
        if own is not None:
            candidates = np.where(candidates == own[:, None], NONE, candidates)
        return _rank(vectors, queries, candidates, k)

    def tune(self, vectors: Vectors, seed: int, queries: int = 200, recall: float = RECALL) -> Tuned:
        """Set `probes` to the fewest, by doubling, that reach the recall on queries drawn from the vectors."""
        own = draw_rows(len(vectors), queries, seed + 1)
        asked = take(vectors, own)
        exact = find_nearest(vectors, asked, RECALL_AT, own=own)[0]
        probes = _FIRST_PROBES
        while True:
            self.probes = min(probes, len(self))
            reached = measure_recall(self.search(vectors, asked, RECALL_AT, own=own)[0], exact)
            if reached >= recall or self.probes == len(self):
                return Tuned(self.probes, reached)
            probes *= 2


def draw_rows(count: int, sample: int, seed: int) -> Rows:
    """Return `sample` of so many rows, or all, ascending; the same seed draws the same ones."""
    drawn = np.random.default_rng(seed).choice(count, min(sample, count), replace=False, shuffle=False)
    return np.sort(drawn.astype(np.int64))


def set_threads(threads: int) -> None:
    """Set the threads of what the calling thread computes with faiss."""
    faiss.omp_set_num_threads(threads)


def _search_few(vectors: Vectors, queries: Vectors, k: int, few: Rows, own: Rows | None) -> tuple[Rows, Vectors]:
    """Return the k nearest of these rows."""
    if not few.size:
        return np.full((len(queries), k), NONE), np.full((len(queries), k), -np.inf, np.float32)
    found, similarities = find_nearest(take(vectors, few), queries, k + (own is not None))
    rows = np.where(found == NONE, NONE, few[found])
    if own is not None:
        is_own = rows == own[:, None]
        rows, similarities = sort_found(np.where(is_own, NONE, rows), np.where(is_own, -np.inf, similarities))
    return rows[:, :k], similarities[:, :k].astype(np.float32)


def _rank(vectors: Vectors, queries: Vectors, candidates: Rows, k: int) -> tuple[Rows, Vectors]:
    """Return the k nearest of the candidates M×C by the exact vectors."""
    step = max(1, _RANKED_BYTES // (4 * candidates.shape[1] * vectors.shape[1]))
    found, similarities = [np.empty((0, k), np.int64)], [np.empty((0, k), np.float32)]
    missing = ((0, 0), (0, max(0, k - candidates.shape[1])))
    for start in range(0, len(candidates), step):
        part = candidates[start : start + step]
        read = torch.from_numpy(take(vectors, np.maximum(part, 0).reshape(-1))).view(*part.shape, -1)
        asked = torch.from_numpy(queries[start : start + step])
        exact = torch.bmm(read, asked[:, :, None])[:, :, 0].numpy()
        rows, values = sort_found(part, np.where(part == NONE, -np.inf, exact).astype(np.float32))
        found.append(np.pad(rows[:, :k], missing, constant_values=NONE))
        similarities.append(np.pad(values[:, :k], missing, constant_values=-np.inf))
    return np.concatenate(found), np.concatenate(similarities)
