"""False colour: which channels are shown, and the sentence that says so."""

import numpy as np
import pytest

from ssl_core.reports.false_colour import describe, to_rgb


@pytest.mark.parametrize(
    ("channels", "shown", "sentence"),
    [
        (1, [0, 0, 0], ""),
        (2, [0, 0, 0], " Shown: the first of 2 channels."),
        (3, [0, 1, 2], ""),
        (5, [0, 1, 2], " Shown: the first 3 of 5 channels."),
    ],
)
def test_the_first_three_channels_are_shown_or_the_first_as_grey(channels, shown, sentence):
    images = np.arange(2 * 4 * 4 * channels, dtype=np.uint8).reshape(2, 4, 4, channels)
    assert np.array_equal(to_rgb(images), images[..., shown])
    assert np.array_equal(to_rgb(images[0]), images[0][..., shown])
    assert describe(channels) == sentence
