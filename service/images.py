"""Images: which rows of a dataset are asked for, by split and class, or as a random sample.

The rows of a dataset are sorted by split and class, those without a label first (`ssl_core.data.pack`), so that the
counts in its report say where the images of a class are: no column is read, however many images there are.
"""

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

SPLITS = ("train", "val", "test")  # in the order of the rows
MAX_SAMPLE = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the rows, ascending."""

    rows: list[int]
    has_more: bool

    @property
    def next(self) -> int | None:
        """The `after` of the next page."""
        return self.rows[-1] if self.has_more else None


def find_rows(report: dict[str, Any], split: str | None, label: int | None) -> list[range]:
    """Return the rows of a split (None: of all) with a label (None: any or none), as ascending ranges."""
    found: list[range] = []
    start = 0
    for name in SPLITS:
        part = report["splits"][name]
        end = start + part["images"]
        if split in (None, name):
            found.append(range(start, end) if label is None else _find_class(end - part["labelled"], part, label))
        start = end
    return found


def draw_sample(ranges: Sequence[range], count: int, seed: int) -> list[int]:
    """Return `count` of the rows, or all if there are fewer, drawn without replacement and ascending.

    The same seed draws the same rows.
    """
    total = sum(map(len, ranges))
    positions = random.Random(seed).sample(range(total), min(count, total))
    return sorted(_row_at(ranges, position) for position in positions)


def take_page(rows: Sequence[Sequence[int]], after: int | None, limit: int) -> Page:
    """Return the first `limit` rows beyond the row `after`, of ascending sequences."""
    last = -1 if after is None else after
    beyond = chain.from_iterable(part[bisect_right(part, last) :] for part in rows)
    found = list(islice(beyond, limit + 1))
    return Page(found[:limit], len(found) > limit)


def _find_class(start: int, part: dict[str, Any], label: int) -> range:
    """The rows of a label in a split, whose rows with a label begin at `start`."""
    start += sum(part["per_class"][:label])
    return range(start, start + part["per_class"][label])


def _row_at(ranges: Sequence[range], position: int) -> int:
    for rows in ranges:
        if position < len(rows):
            return rows[position]
        position -= len(rows)
    raise AssertionError("the position is less than the number of rows")
