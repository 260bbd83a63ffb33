"""Sampling: even draws equal those of an algorithm that visits one class after another, on any labels."""

import time

import numpy as np
import pytest

from ssl_core import rng
from ssl_core.data.sampling import Rows, draw_evenly


def draw_class_after_class(labels: Rows, count: int, stream: int) -> Rows:
    """The same draw by a pass over all images for each class."""
    shuffled = rng.permutation(stream, len(labels)).numpy()
    drawn, values = labels[shuffled], np.unique(labels)
    rank = np.empty(len(labels), dtype=np.int64)
    for value in values:
        rank[drawn == value] = np.arange((drawn == value).sum())
    turn = rng.permutation(rng.stream(stream, 1), len(values)).numpy()
    return shuffled[np.lexsort((turn[np.searchsorted(values, drawn)], rank))[:count]]


@pytest.mark.parametrize("classes", [1, 2, 7, 300])
@pytest.mark.parametrize("lowest", [0, -1])  # -1 is the label of an unlabelled image
def test_an_even_draw_has_the_rows_of_the_pass_over_each_class_in_the_same_order(classes, lowest):
    generator = np.random.default_rng(classes)
    for stream in range(60):
        size = int(generator.integers(0, 400))
        labels = lowest + np.floor(classes * generator.random(size) ** generator.uniform(0.5, 4)).astype(np.int64)
        for count in (0, 1, classes, size // 3, size, size + 5):
            drawn = draw_evenly(labels, count, stream)
            assert drawn.tolist() == draw_class_after_class(labels, count, stream).tolist()
            assert drawn.dtype == np.int64


def test_the_time_of_an_even_draw_does_not_grow_with_the_number_of_classes():
    labels = rng.permutation(0, 200_000).numpy()

    def seconds(classes: int) -> float:
        started = time.process_time()
        draw_evenly(labels % classes, 1_000, 0)
        return time.process_time() - started

    few, many = (min(seconds(classes) for _ in range(3)) for classes in (10, 50_000))
    assert many < 20 * few  # a pass over the images for each class takes thousands of times as long
