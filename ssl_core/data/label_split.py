"""A trial: which labelled rows of a dataset teach a classifier, which pick its settings, and which judge it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_core import rng
from ssl_core.data.dataset import Dataset
from ssl_core.data.sampling import Rows, draw_evenly, hold_out
from ssl_core.errors import ConfigUnfit, LabelsNeeded

TEST_FRACTION = 0.2


@dataclass(frozen=True)
class LabelSplit:
    """No row is in two of the three; all are labelled."""

    train: Rows
    val: Rows  # empty when the dataset has no split to pick settings with
    test: Rows
    test_name: str  # what `test` is, in words

    @property
    def online_eval(self) -> Rows:
        """The rows that are evaluated on during training: the val split where there is one, so as to spare `test`."""
        return self.val if len(self.val) else self.test

    @classmethod
    def of(cls, dataset: Dataset, subset: int | None, seed: int, test_fraction: float = TEST_FRACTION) -> "LabelSplit":
        """Judge on the test split; without one on val; without either on a share of train, held out by the seed.

        Raises LabelsNeeded when there are not two classes to tell apart.
        """
        train = dataset.select_labelled(dataset.indices("train", subset, seed))
        val, test = (dataset.select_labelled(dataset.indices(name)) for name in ("val", "test"))
        if len(np.unique(dataset.labels[train])) < 2:
            raise LabelsNeeded("This needs labelled training images of at least two classes.")
        if len(test):
            return cls(train, val, test, "the test split")
        if len(val):
            return cls(train, test, val, "the val split")
        kept = hold_out(dataset.labels[train], test_fraction, rng.stream(seed, rng.Stream.TEST))
        if len(np.unique(dataset.labels[train[~kept]])) < 2:
            raise LabelsNeeded(f"Without {100 * test_fraction:g} % of the images too few are left to learn from.")
        test_name = f"{100 * test_fraction:g} % of the train split, held out"
        return cls(train[~kept], val, train[kept], test_name)


def draw_labelled(labels: Rows, fraction: float, seed: int, draw: int) -> Rows:
    """Return the positions in `labels` whose labels a draw reveals: the fraction of them, evenly from the classes."""
    count = max(1, round(fraction * len(labels)))
    if count >= len(labels):
        return np.arange(len(labels))
    return np.sort(draw_evenly(labels, count, rng.stream(seed, rng.Stream.LABELS, draw)))


def find_labelled(split: LabelSplit, rows: Sequence[int]) -> Rows:
    """Return the positions in the trial's training rows of the dataset's `rows`, ascending.

    Raises ConfigUnfit when one of them is not among them: it is unlabelled, of another split, held out or no row.
    """
    wanted = np.array(sorted(rows), dtype=np.int64)
    wrong = wanted[~np.isin(wanted, split.train)]
    if len(wrong):
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        raise ConfigUnfit(
            f"label_rows holds {wrong[0]}{more}: each has to be a labelled image of the train split, within the"
            " subset, that is not held out to judge."
        )
    return np.searchsorted(split.train, wanted)
