"""A trial: which labelled rows of a dataset teach a classifier, which pick its settings, and which judge it."""

from dataclasses import dataclass

import numpy as np

from ssl_core import counters
from ssl_core.data import Dataset, Rows, draw_evenly, hold_out
from ssl_core.failures import LabelsNeeded

_HELD_OUT = 0.2
_TEST, _DRAW = 0x74657374, 0x64726177  # set these streams apart from others under the same seed


@dataclass(frozen=True)
class Trial:
    """No row is in two of the three; all are labelled."""

    train: Rows
    val: Rows  # empty when the dataset has no split to pick settings with
    test: Rows
    judge: str  # what `test` is, in words

    @classmethod
    def of(cls, dataset: Dataset, subset: int | None, seed: int) -> "Trial":
        """Judge on the test split; without one on val; without either on a fifth of train, held out by the seed.

        Raises LabelsNeeded when there are not two classes to tell apart.
        """
        train = dataset.labelled(dataset.indices("train", subset, seed))
        val, test = (dataset.labelled(dataset.indices(split)) for split in ("val", "test"))
        if len(np.unique(dataset.labels[train])) < 2:
            raise LabelsNeeded("This needs labelled training images of at least two classes.")
        if len(test):
            return cls(train, val, test, "the test split")
        if len(val):
            return cls(train, test, val, "the val split")
        kept = hold_out(dataset.labels[train], _HELD_OUT, counters.stream(seed, _TEST))
        return cls(train[~kept], val, train[kept], "a held-out fifth of the train split")


def draw_labelled(labels: Rows, fraction: float, seed: int, draw: int) -> Rows:
    """Return the positions in `labels` whose labels a draw reveals: the fraction of them, evenly from the classes."""
    count = max(1, round(fraction * len(labels)))
    if count >= len(labels):
        return np.arange(len(labels))
    return np.sort(draw_evenly(labels, count, counters.stream(seed, _DRAW, draw)))
