"""View parameters: the random augmentation parameters of one view of each image.

Drawn on the CPU in float64 by counter-based random numbers and rounded once, so that every device uses the same
parameters. Each parameter has its own index among a sample's draws: enabling blur does not change the crops.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core import rng
from ssl_core.config import Views

ATTEMPTS = 10  # to draw a crop that fits, as torchvision's RandomResizedCrop
_AREAS, _RATIOS = slice(0, 10), slice(10, 20)
_TOP, _LEFT, _FLIP, _JITTER, _GREY, _BLUR, _SIGMA, _GAMMA, _FACTORS, _HUE, _ORDER, _HUE_POSITION = (
    20, 21, 22, 23, 24, 25, 26, 27, slice(28, 31), 31, 32, 33,
)  # fmt: skip
_ROTATION, _SHEAR, _SCALE, _SHIFT, _SOLARIZE, _DRAWS = 34, 35, 36, slice(37, 39), 39, 40

BRIGHTNESS, CONTRAST, SATURATION = 0, 1, 2
ORDERS = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
NO_JITTER = 4


@dataclass(frozen=True)
class ViewParameters:
    """One row per sample; float32 except for `hue_position` and `order`."""

    box: Tensor  # N×4: top, left, height, width of the crop, in pixels, fractions too
    mirror: Tensor  # N: 1 flips left and right
    hue_position: Tensor  # int64 N: how many of brightness, contrast, saturation precede hue; NO_JITTER: no jitter
    hue: Tensor  # N, in turns
    order: Tensor  # int64 N×3: BRIGHTNESS, CONTRAST, SATURATION in order of application
    factors: Tensor  # N×3: of the first, second, third in `order`
    offset: Tensor  # N: added in place of the brightness factor
    grey: Tensor  # N: 1 converts to greyscale
    blur: Tensor  # N: 1 blurs
    sigma: Tensor  # N, in pixels of the view
    solarize: Tensor  # N: 1 inverts the values above a half
    gamma: Tensor  # N: exponent
    affine: Tensor  # N×6: output-to-input map, see ssl_core.augment.geometry.affine


def draw_parameters(views: Views, keys: Tensor, sizes: Tensor) -> ViewParameters:
    """Return the parameters for each key (int64 N); sizes: N×2, the images' heights and widths in pixels."""
    u = rng.uniforms(keys, _DRAWS)
    order = ORDERS[(u[:, _ORDER] * len(ORDERS)).long()]
    low, high = _compute_factor_bounds(views)
    factors = low + u[:, _FACTORS] * (high - low)
    added = views.jitter_strength * views.brightness if views.brightness_added else 0.0
    hue = min(views.jitter_strength * views.hue, 0.5)
    jittered = u[:, _JITTER] < views.jitter
    sigma_low, sigma_high = views.blur_sigma
    return ViewParameters(
        box=_draw_boxes(views, u, sizes.double()).float(),
        mirror=(u[:, _FLIP] < views.flip).float(),
        hue_position=torch.where(jittered, (u[:, _HUE_POSITION] * 4).long(), NO_JITTER),
        hue=_spread(u[:, _HUE], hue).float(),
        order=order,
        factors=factors.gather(1, order).float(),
        offset=_spread(u[:, _FACTORS][:, BRIGHTNESS], added).float(),
        grey=(u[:, _GREY] < views.grey).float(),
        blur=(u[:, _BLUR] < views.blur).float(),
        sigma=(sigma_low + u[:, _SIGMA] * (sigma_high - sigma_low)).float(),
        solarize=(u[:, _SOLARIZE] < views.solarize).float(),
        gamma=torch.exp(_spread(u[:, _GAMMA], views.gamma)).float(),
        affine=_draw_affine(views, u).float(),
    )


def has_affine(views: Views) -> bool:
    """Return whether any view is rotated, sheared, scaled or translated."""
    return bool(views.rotation or views.shear or views.translation) or views.scale != (1.0, 1.0)


def _compute_factor_bounds(views: Views) -> tuple[Tensor, Tensor]:
    """The bounds of the factors of brightness, contrast and saturation, 3 each."""
    spread = views.jitter_strength * torch.tensor([views.brightness, views.contrast, views.saturation]).double()
    low, high = (1 - spread).clamp_min(0), 1 + spread
    if views.brightness_added:
        low[BRIGHTNESS] = high[BRIGHTNESS] = 1
    if views.contrast_range is not None:
        low[CONTRAST], high[CONTRAST] = views.contrast_range
    return low, high


def _spread(u: Tensor, spread: float) -> Tensor:
    """Uniform on ±spread."""
    return (u * 2 - 1) * spread


def _draw_boxes(views: Views, u: Tensor, sizes: Tensor) -> Tensor:
    """The first of ten crops that fits; else the largest central one with a permitted ratio. N×4."""
    height, width = sizes.unbind(1)
    if views.crop_area is None:
        zero = torch.zeros_like(height)
        return torch.stack([zero, zero, height, width], 1)
    low, high = views.crop_area
    area = (low + u[:, _AREAS] * (high - low)) * (height * width)[:, None]
    shortest, longest = (math.log(ratio) for ratio in views.crop_ratio)
    ratio = torch.exp(shortest + u[:, _RATIOS] * (longest - shortest))
    tall, wide = torch.sqrt(area / ratio), torch.sqrt(area * ratio)
    fits = (tall <= height[:, None]) & (wide <= width[:, None])
    first = fits.int().argmax(1, keepdim=True)
    fitting = fits.any(1)
    limited = (width / height).clamp(*views.crop_ratio)
    tall = torch.where(fitting, tall.gather(1, first)[:, 0], torch.minimum(height, width / limited))
    wide = torch.where(fitting, wide.gather(1, first)[:, 0], torch.minimum(width, height * limited))
    top = torch.where(fitting, u[:, _TOP], 0.5) * (height - tall)
    left = torch.where(fitting, u[:, _LEFT], 0.5) * (width - wide)
    return torch.stack([top, left, tall, wide], 1)


def _draw_affine(views: Views, u: Tensor) -> Tensor:
    """The inverse of: shear, scale, rotate about the centre, translate. N×6."""
    angle = _spread(u[:, _ROTATION], math.radians(views.rotation))
    shear = _spread(u[:, _SHEAR], views.shear)
    zoom = views.scale[0] + u[:, _SCALE] * (views.scale[1] - views.scale[0])
    x, y = (_spread(u[:, _SHIFT], views.translation) * -2).unbind(1)  # on coordinates from -1 to 1
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    # The inverse rotation and scale, then the inverse shear.
    a, b = cos - shear * -sin, sin - shear * cos
    d, e = -sin, cos
    return torch.stack([a, b, a * x + b * y, d, e, d * x + e * y], 1)
