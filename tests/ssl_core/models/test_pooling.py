"""SAME-padded pooling against explicit windows, on odd and even sides."""

import pytest
import torch

from ssl_core.models.pooling import AveragePool, SameMaxPool


def windows(x, size, stride, first):
    """The part of each window that lies in the image, row by row; the first window starts at `first`."""
    side = x.shape[-1]
    starts = [first + stride * i for i in range(-(-side // stride))]
    return [[x[..., max(0, top) : top + size, max(0, left) : left + size] for left in starts] for top in starts]


def reduced(rows, reduce):
    return torch.stack([torch.stack([reduce(window) for window in row], dim=-1) for row in rows], dim=-2)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
def test_max_pooling_is_padded_at_the_end_only_on_even_sides(side):
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    expected = reduced(windows(x, 3, 2, -(side % 2)), lambda window: window.amax(dim=(-1, -2)))
    torch.testing.assert_close(SameMaxPool()(x), expected)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
def test_average_pooling_at_stride_one_excludes_padding(side):
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    expected = reduced(windows(x, 2, 1, 0), lambda window: window.mean(dim=(-1, -2)))
    torch.testing.assert_close(AveragePool(1)(x), expected)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
def test_average_pooling_at_stride_two_pads_with_zeros(side):
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    expected = reduced(windows(x, 2, 2, 0), lambda window: window.sum(dim=(-1, -2)) / 4)
    torch.testing.assert_close(AveragePool(2)(x), expected)
