"""Metric history: downsampling, checkpoints, and non-finite values."""

import random
from itertools import pairwise

from ssl_core.reports.history import MAX_POINTS, History


def filled(count, history=None, start=0):
    history = history or History()
    for step in range(start, count):
        history.add(step, 1000.0 + step, {"train/loss": 1 / (step + 1)})
    return history


def test_few_points_are_all_stored():
    loss = filled(5).series["train/loss"]
    assert (loss.step, loss.time) == ([0, 1, 2, 3, 4], [1000.0, 1001.0, 1002.0, 1003.0, 1004.0])
    assert loss.value == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]


def test_many_points_are_downsampled_evenly_and_keep_the_last():
    for count in (MAX_POINTS, MAX_POINTS + 1, 2 * MAX_POINTS + 1, 7 * MAX_POINTS + 3):
        steps = filled(count).series["train/loss"].step
        assert MAX_POINTS / 2 <= len(steps) <= MAX_POINTS
        assert (steps[0], steps[-1]) == (0, count - 1)
        gaps = {later - earlier for earlier, later in pairwise(steps[:-1])}
        assert len(gaps) == 1
        assert steps[-1] - steps[-2] <= gaps.pop()


def test_a_restored_history_equals_an_uninterrupted_one():
    whole = filled(5_000).state()
    for count in random.Random(0).sample(range(1, 5_000), 20):
        history = History.of(filled(count).state())
        assert filled(5_000, history, start=count).state() == whole


def test_a_non_finite_value_is_stored_as_none():
    history = History()
    history.add(1, 0.0, {"train/loss": None, "train/std": 0.5})
    assert history.series["train/loss"].value == [None]
    assert history.series["train/std"].value == [0.5]
