"""Label splits: the labelled rows of a dataset that train, select and test a classifier."""

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
    """Three disjoint sets of labelled rows."""

    train: Rows
    val: Rows  # for hyper-parameter selection; empty when the dataset has none to spare
    test: Rows
    test_name: str  # for reports and logs, such as "the val split"

    @property
    def online_eval(self) -> Rows:
        """The rows of online evaluation: `val` where there is one, so that training never sees `test`."""
        return self.val if len(self.val) else self.test

    @classmethod
    def of(cls, dataset: Dataset, subset: int | None, seed: int, test_fraction: float = TEST_FRACTION) -> "LabelSplit":
        """Test on the test split; without one on val; without either on a fraction of train, held out by the seed.

        Raises LabelsNeeded when fewer than two classes have labelled training images.
        """
        train = dataset.select_labelled(dataset.indices("train", subset, seed))
        val, test = (dataset.select_labelled(dataset.indices(name)) for name in ("val", "test"))
        if len(np.unique(dataset.labels[train])) < 2:
            raise LabelsNeeded("This needs labelled training images of at least two classes.")
        if len(test):
            return cls(train, val, test, "the test split")
        if len(val):
            return cls(train, test, val, "the val split")
        held_out = hold_out(dataset.labels[train], test_fraction, rng.stream(seed, rng.Stream.TEST))
        if len(np.unique(dataset.labels[train[~held_out]])) < 2:
            raise LabelsNeeded(f"Holding out {100 * test_fraction:g} % of the images leaves fewer than two classes.")
        test_name = f"{100 * test_fraction:g} % of the train split, held out"
        return cls(train[~held_out], val, train[held_out], test_name)


def draw_labelled(labels: Rows, fraction: float, seed: int, draw: int) -> Rows:
    """Return positions in `labels`, ascending: a fraction drawn evenly from the classes; `draw` numbers the draws."""
    count = max(1, round(fraction * len(labels)))
    if count >= len(labels):
        return np.arange(len(labels))
    return np.sort(draw_evenly(labels, count, rng.stream(seed, rng.Stream.LABELS, draw)))


def find_labelled(split: LabelSplit, rows: Sequence[int]) -> Rows:
    """Return the positions of the dataset's `rows` in the split's training rows, ascending.

    Raises ConfigUnfit for a row that is not among them: unlabelled, of another split, held out or out of range.
    """
    wanted = np.array(sorted(rows), dtype=np.int64)
    wrong = wanted[~np.isin(wanted, split.train)]
    if len(wrong):
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        raise ConfigUnfit(
            f"label_rows holds {wrong[0]}{more}: each has to be a labelled image of the train split, within the"
            " subset, that is not held out for testing."
        )
    return np.searchsorted(split.train, wanted)
