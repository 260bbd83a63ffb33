"""The points that a run keeps for its curves."""

import random
from itertools import pairwise

from ssl_core.reports.history import MOST_POINTS, History


def filled(count, history=None, start=0):
    history = history or History()
    for step in range(start, count):
        history.add(step, 1000.0 + step, {"train/loss": 1 / (step + 1)})
    return history


def test_few_points_are_all_kept():
    loss = filled(5).series["train/loss"]
    assert (loss.step, loss.time) == ([0, 1, 2, 3, 4], [1000.0, 1001.0, 1002.0, 1003.0, 1004.0])
    assert loss.value == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]


def test_of_many_points_evenly_spaced_ones_and_the_last_are_kept():
    for count in (MOST_POINTS, MOST_POINTS + 1, 2 * MOST_POINTS + 1, 7 * MOST_POINTS + 3):
        steps = filled(count).series["train/loss"].step
        assert MOST_POINTS / 2 <= len(steps) <= MOST_POINTS
        assert (steps[0], steps[-1]) == (0, count - 1)
        gaps = {later - earlier for earlier, later in pairwise(steps[:-1])}
        assert len(gaps) == 1
        assert steps[-1] - steps[-2] <= gaps.pop()


def test_a_history_that_went_through_a_checkpoint_goes_on_as_if_it_had_not():
    whole = filled(5_000).state()
    for kept in random.Random(0).sample(range(1, 5_000), 20):
        history = History.of(filled(kept).state())
        assert filled(5_000, history, start=kept).state() == whole


def test_a_value_that_is_no_number_is_kept_as_a_gap():
    history = History()
    history.add(1, 0.0, {"train/loss": None, "train/std": 0.5})
    assert history.series["train/loss"].value == [None]
    assert history.series["train/std"].value == [0.5]
