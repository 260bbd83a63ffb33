"""Answers to queries of an open index, as plain values for JSON."""

from functools import singledispatch
from typing import Any

import numpy as np

from service.errors import OutsideSelection, TooMuchWork, UnknownLabel
from service.indexes.queries import Duplicates, Labels, Nearest, Outliers, Query, Selection
from ssl_core.data.split_names import SPLITS
from ssl_core.errors import Fault
from worker.encoder.search import coverage, label_transfer, neighbours
from worker.encoder.search.index import Index
from worker.encoder.search.inverted_lists import draw_rows
from worker.encoder.search.nearest import NONE, Mask, Rows, Vectors, take

Json = dict[str, Any]
_SELECTION_COST = 4  # of one product in a selection, which waits for memory, in those of label transfer
MOST_LISTED = 5_000_000  # neighbours that are compared for duplicates, about a million a second
LONG = (Duplicates, Outliers, Selection, Labels)  # queries that may take seconds


@singledispatch
def answer(query: Query, index: Index, vector: Vectors | None, max_products: int) -> Json:
    """Return the answer. `vector`, 1×D, is that of a query that names no row.

    Raises UnknownLabel, OutsideSelection; TooMuchWork, before any work, for more than `max_products` multiplications.
    """
    raise TypeError(type(query).__name__)


@answer.register
def _find_nearest(query: Nearest, index: Index, vector: Vectors | None, max_products: int) -> Json:
    allowed = _choose(index, query.split, query.label, "/label")
    named = None if query.row is None else index.find([query.row], "/row")
    own = named if query.exclude_self else None
    asked = vector if named is None else take(index.vectors, named)
    assert asked is not None
    rows, similarities = index.search(asked, query.k, allowed, own)
    found = [(int(row), float(value)) for row, value in zip(rows[0], similarities[0], strict=True) if row != NONE]
    return {"data": [index.describe(row) | {"similarity": round(value, 6)} for row, value in found]}


@answer.register
def _find_duplicates(query: Duplicates, index: Index, vector: Vectors | None, max_products: int) -> Json:
    listed = neighbours.count_listed(index.similarities, query.threshold)
    if listed > MOST_LISTED:
        detail = (
            f"{listed:,} neighbours have a similarity of at least {query.threshold:g}, and at most {MOST_LISTED:,} are"
            " compared in one request; a higher threshold has fewer."
        )
        raise TooMuchWork(detail, errors=[Fault(pointer="threshold", code="too_much_work", detail=detail)])
    splits = index.splits if query.across_splits else None
    pairs = neighbours.find_duplicates(index.neighbours, index.similarities, query.threshold, query.limit, splits)
    data = [
        {"similarity": round(float(value), 6), "images": [index.describe(int(row)) for row in rows]}
        for rows, value in zip(pairs.rows, pairs.similarities, strict=True)
    ]
    return {"data": data, "total": pairs.total}


@answer.register
def _find_outliers(query: Outliers, index: Index, vector: Vectors | None, max_products: int) -> Json:
    allowed = _choose(index, query.split, query.label, "label")
    rows, distances = neighbours.find_outliers(index.similarities, query.k, query.limit, allowed)
    data = [
        index.describe(int(row)) | {"distance": round(float(value), 6)}
        for row, value in zip(rows, distances, strict=True)
    ]
    return {"data": data}


@answer.register
def _select(query: Selection, index: Index, vector: Vectors | None, max_products: int) -> Json:
    of_split = index.choose(query.split, None)
    candidates = np.ones(len(index), bool) if of_split is None else of_split
    covered = np.empty(0, np.int64)
    if query.unlabelled:
        covered = np.flatnonzero(candidates & (index.labels >= 0))
        candidates = candidates & (index.labels < 0)
    rows = np.flatnonzero(candidates)
    start = None if query.start is None else int(index.find([query.start], "start")[0])
    if start is not None and not candidates[start]:
        fault = Fault(pointer="start", code="outside_selection", detail=str(OutsideSelection.__doc__))
        raise OutsideSelection(errors=[fault])
    _check_selection(query.n, rows, len(covered), index.vectors.shape[1], max_products)
    if start is None and not len(covered) and len(rows):
        start = int(rows[draw_rows(len(rows), 1, query.seed)[0]])
    taken = coverage.select(index.vectors, candidates, query.n, covered, start)
    data = [
        index.describe(int(row)) | {"radius": round(float(radius), 6)}
        for row, radius in zip(taken.rows, taken.radii, strict=True)
    ]
    return {"data": data, "candidates": len(rows), "covered": len(covered)}


@answer.register
def _transfer_labels(query: Labels, index: Index, vector: Vectors | None, max_products: int) -> Json:
    if query.rows is None:
        rows = _list_unlabelled(index, query)
        has_more = len(rows) > query.limit
        rows = rows[: query.limit]
    else:
        rows, has_more = index.find(query.rows, "rows"), False
    products = len(rows) * index.vectors.size
    if products > max_products:
        most = max_products // index.vectors.size
        raise TooMuchWork(
            f"Of {len(index):,} images at most {most:,} get labels in one request; {len(rows):,} are asked."
        )
    found = label_transfer.transfer(index.vectors, np.asarray(index.labels), rows, query.k, query.temperature)
    classes = index.about["classes"]
    data = [
        index.describe(int(row))
        | {"predicted": classes[label] if label >= 0 else None, "confidence": round(float(confidence), 6)}
        for row, label, confidence in zip(rows, found.labels, found.confidences, strict=True)
    ]
    return {"data": data, "has_more": has_more, "next": int(index.rows[rows[-1]]) if has_more else None}


def _choose(index: Index, split: str | None, label: str | None, pointer: str) -> Mask | None:
    """Return the rows of a split and a label, None for all. Raises UnknownLabel."""
    if label is not None and label not in index.about["classes"]:
        raise UnknownLabel(errors=[Fault(pointer=pointer, code="unknown_label", detail=str(UnknownLabel.__doc__))])
    return index.choose(split, None if label is None else index.about["classes"].index(label))


def _list_unlabelled(index: Index, query: Labels) -> Rows:
    """Return the rows without a label beyond `after`, one more than are asked for if there are so many."""
    start = 0 if query.after is None else int(np.searchsorted(index.rows, query.after, side="right"))
    unlabelled = index.labels[start:] < 0
    if query.split is not None:
        unlabelled &= index.splits[start:] == SPLITS.index(query.split)
    return start + np.flatnonzero(unlabelled)[: query.limit + 1]


def _check_selection(count: int, rows: Rows, covered: int, dim: int, max_products: int) -> None:
    if not len(rows):
        return
    step = (int(rows[-1]) - int(rows[0]) + 1) * dim
    left = max_products - covered * step
    if min(count, len(rows)) * step * _SELECTION_COST > left:
        most = max(0, left // (step * _SELECTION_COST))
        more = (
            f"at most {most:,} are selected in one request." if most else "too many have a label to be compared with."
        )
        raise TooMuchWork(
            f"Of {len(rows):,} images {more}",
            errors=[Fault(pointer="n", code="too_much_work", detail=f"At most {most:,} here.")],
        )
