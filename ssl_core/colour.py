"""Colour operations on float RGB batches N×3×H×W in [0, 1], with one parameter per sample.

Each result is the same to the bit for a sample alone as in a batch: only additions, products, extremes and per-sample
sums are used, none of them fused, so neither vector width nor thread boundaries can show.
"""

import torch
from torch import Tensor

_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114  # ITU-R 601, as PIL and torchvision


def grey(images: Tensor) -> Tensor:
    """Return the luma, N×H×W."""
    red, green, blue = images.unbind(1)
    return (red * _RED).add_(green * _GREEN).add_(blue * _BLUE)


def blend_(images: Tensor, keep: Tensor, mean_share: Tensor, grey_share: Tensor) -> Tensor:
    """Set images to keep·x + mean_share·mean(grey(x)) + grey_share·grey(x), clipped; each factor is N.

    (f, 0, 0) is brightness, (f, 1-f, 0) contrast and (f, 0, 1-f) saturation, so that a batch whose samples each want
    a different one of the three is a single pass.
    """
    luma = grey(images)
    mean = luma.sum(2).sum(1).div_(luma[0].numel())  # in two steps: rows, then the image, whatever the threads
    other = luma.mul_(grey_share[:, None, None]).add_((mean * mean_share)[:, None, None])
    return images.mul_(keep[:, None, None, None]).add_(other[:, None]).clamp_(0, 1)


def brightness_(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply by the factor (N), clipped."""
    zero = torch.zeros_like(factor)
    return blend_(images, factor, zero, zero)


def contrast_(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean of the grey image; a factor (N) of 1 changes nothing."""
    return blend_(images, factor, 1 - factor, torch.zeros_like(factor))


def saturation_(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; a factor (N) of 1 changes nothing."""
    return blend_(images, factor, torch.zeros_like(factor), 1 - factor)


def hue_(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue in HSV by `turns` (N; 1 is the full circle); value and saturation stay."""
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = torch.minimum(torch.minimum(red, green), blue).neg_().add_(value)
    # The hue in turns: a sixth of the circle lies between two neighbouring pure colours.
    sixth = chroma.clamp_min(1e-12).reciprocal_().mul_(1 / 6)
    hue = torch.where(
        value == red,
        (green - blue).mul_(sixth),
        torch.where(value == green, (blue - red).mul_(sixth).add_(1 / 3), (red - green).mul_(sixth).add_(2 / 3)),
    ).add_(turns[:, None, None])
    # A channel loses chroma·clamp(2 - distance, 0, 1), the distance to its opposite colour counted in sixths.
    opposite = hue.new_tensor([0.5, 1 / 6, -1 / 6])[:, None, None]
    distance = hue[:, None] + opposite
    distance.sub_(distance.round()).abs_().mul_(-6).add_(2).clamp_(0, 1)
    return torch.sub(value[:, None], distance.mul_(chroma[:, None]), out=images)


def gamma_(images: Tensor, exponent: Tensor) -> Tensor:
    """Raise to the exponent (N)."""
    return images.log_().mul_(exponent[:, None, None, None]).exp_()
