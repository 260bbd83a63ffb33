"""Colour operations on float RGB batches N×3×H×W in [0, 1], with one parameter per sample.

Results are bitwise equal for a sample alone and in a batch: only additions, products, extremes and per-sample sums are
used, none of them fused, so they depend neither on vector width nor on thread boundaries.
"""

import torch
from torch import Tensor

_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114  # ITU-R 601, as PIL and torchvision


def compute_luma(images: Tensor) -> Tensor:
    """Return the luma, N×H×W."""
    red, green, blue = images.unbind(1)
    return (red * _RED).add_(green * _GREEN).add_(blue * _BLUE)


def blend_(images: Tensor, keep: Tensor, mean_share: Tensor, grey_share: Tensor) -> Tensor:
    """Set images to keep·x + mean_share·mean(grey(x)) + grey_share·grey(x), clipped; each factor is N.

    (f, 0, 0) is brightness, (f, 1-f, 0) contrast and (f, 0, 1-f) saturation, so a batch with a different operation per
    sample is one pass.
    """
    luma = compute_luma(images)
    mean = luma.sum(2).sum(1).div_(luma[0].numel())  # in two steps, rows then the image, for any number of threads
    other = luma.mul_(grey_share[:, None, None]).add_((mean * mean_share)[:, None, None])
    return images.mul_(keep[:, None, None, None]).add_(other[:, None]).clamp_(0, 1)


def adjust_hue_(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue in HSV by `turns` (N; 1 is the full circle); value and saturation are unchanged.

    The six cases of the RGB-HSV conversion without a branch. With value V, minimum m and chroma C = V - m, the hue's
    distance from red, in sixths of the circle, is (C + (G - m) + (B - R)) / C, and its sign that of G - B. Converted
    back, a channel is V - C times clamp(2 - distance to the channel's opposite colour, 0, 1).
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(red, green)
    least = torch.minimum(red, green)
    torch.maximum(value, blue, out=value)
    torch.minimum(least, blue, out=least)
    chroma = value - least
    hue = (green - least).add_(blue).sub_(red).add_(chroma).div_(chroma.clamp_min(1e-12).mul_(6))
    hue.copysign_(torch.sub(green, blue, out=least)).add_(turns[:, None, None])
    hue.sub_(torch.round(hue, out=least)).mul_(6)  # from -3 to 3; red at 0
    for channel, opposite in ((green, -1), (blue, 1)):
        lost = torch.sub(hue, opposite, out=least).abs_().neg_().add_(2).clamp_(0, 1).mul_(chroma)
        torch.sub(value, lost, out=channel)
    lost = hue.abs_().sub_(1).clamp_(0, 1).mul_(chroma)
    torch.sub(value, lost, out=red)
    return images


def adjust_gamma_(images: Tensor, exponent: Tensor) -> Tensor:
    """Raise to the power of the exponent (N)."""
    return images.log_().mul_(exponent[:, None, None, None]).exp_()
