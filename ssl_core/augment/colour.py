"""Colour operations on float batches N×C×H×W in [0, 1], with one parameter per sample.

Greyscale, saturation and hue are of RGB, C = 3. Brightness, contrast and gamma are of each channel, except that the
contrast of RGB is that of its grey image.

Results are bitwise equal for a sample alone and in a batch: only additions, products, extremes and per-sample sums are
used, none of them fused, so they depend neither on vector width nor on thread boundaries.
"""

import torch
from torch import Tensor

from ssl_core.config.views import RGB

_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114  # ITU-R 601, as PIL and torchvision


def compute_luma(images: Tensor) -> Tensor:
    """Return the luma of RGB, N×H×W."""
    red, green, blue = images.unbind(1)
    return (red * _RED).add_(green * _GREEN).add_(blue * _BLUE)


def blend_(images: Tensor, keep: Tensor, mean_share: Tensor, grey_share: Tensor) -> Tensor:
    """Set RGB to keep·x + mean_share·mean(grey(x)) + grey_share·grey(x), clipped; each factor is N.

    (f, 0, 0) is brightness, (f, 1-f, 0) contrast and (f, 0, 1-f) saturation, so a batch with a different operation per
    sample is one pass. Images of other than 3 channels become keep·x + mean_share·(each channel's own mean).
    """
    if images.shape[1] != RGB:
        means = images.sum(3).sum(2).div_(images[0, 0].numel())  # N×C
        other = (means * mean_share[:, None])[:, :, None, None]
        return images.mul_(keep[:, None, None, None]).add_(other).clamp_(0, 1)
    luma = compute_luma(images)
    mean = luma.sum(2).sum(1).div_(luma[0].numel())  # in two steps, rows then the image, for any number of threads
    other = luma.mul_(grey_share[:, None, None]).add_((mean * mean_share)[:, None, None])
    return images.mul_(keep[:, None, None, None]).add_(other[:, None]).clamp_(0, 1)


def adjust_hue_(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue of RGB in HSV by `turns` (N; 1 is the full circle); value and saturation are unchanged."""
    value, chroma, hue, spare = _find_hue(images, turns)
    for channel, lost in zip(images.unbind(1), (_lose_red, _lose_green, _lose_blue), strict=True):
        torch.sub(value, lost(hue, chroma, spare), out=channel)
    return images


def jitter(
    images: Tensor,
    hue_position: Tensor,
    turns: Tensor,
    added: Tensor,
    keep: Tensor,
    mean_share: Tensor,
    grey_share: Tensor,
    grey: Tensor,
) -> Tensor:
    """Return the images after three blends, with the hue rotated before that of number `hue_position`, and greyscale.

    The functions above, as one for a compiler that fuses them: none of its operations depends on a value.
    hue_position: N, 3 is after all blends, 4 is neither hue nor blends; turns: N; added, keep, mean_share, grey_share:
    N×3, of the blends, `added` to all channels before each; grey: N, 0 or 1. Images of other than 3 channels have
    neither hue nor greyscale.
    """
    place, plain, is_rgb = hue_position[:, None, None, None], images, images.shape[1] == RGB
    for position in range(4):
        if is_rgb:
            images = torch.where(place == position, _rotate_hue(images, turns), images)
        if position < 3:
            images = images + added[:, position, None, None, None]
            images = blend_(images, keep[:, position], mean_share[:, position], grey_share[:, position])
    images = torch.where(place < 4, images, plain)
    if not is_rgb:
        return images
    return torch.where(grey[:, None, None, None] > 0, compute_luma(images)[:, None], images)


def _rotate_hue(images: Tensor, turns: Tensor) -> Tensor:
    """A copy of the images, with the hue rotated."""
    value, chroma, hue, _ = _find_hue(images, turns)
    lost = (lose(hue, chroma, torch.empty_like(hue)) for lose in (_lose_red, _lose_green, _lose_blue))
    return torch.stack([value - each for each in lost], 1)


def _find_hue(images: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, chroma, rotated hue in sixths of the circle, from -3 to 3 with red at 0, and a spare tensor; N×H×W each.

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
    hue.sub_(torch.round(hue, out=least)).mul_(6)
    return value, chroma, hue, least


def _lose_red(hue: Tensor, chroma: Tensor, out: Tensor) -> Tensor:
    return torch.abs(hue, out=out).sub_(1).clamp_(0, 1).mul_(chroma)


def _lose_green(hue: Tensor, chroma: Tensor, out: Tensor) -> Tensor:
    return torch.add(hue, 1, out=out).abs_().neg_().add_(2).clamp_(0, 1).mul_(chroma)


def _lose_blue(hue: Tensor, chroma: Tensor, out: Tensor) -> Tensor:
    return torch.sub(hue, 1, out=out).abs_().neg_().add_(2).clamp_(0, 1).mul_(chroma)


def adjust_gamma_(images: Tensor, exponent: Tensor) -> Tensor:
    """Raise to the power of the exponent (N)."""
    return images.log_().mul_(exponent[:, None, None, None]).exp_()
