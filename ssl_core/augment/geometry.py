"""Geometric transforms of image batches, with parameters per sample: crop, flip, resize, affine map, Gaussian blur.

A crop is two batched matrix products with triangle filters, widened for downscaling: PIL's antialiased bilinear
`resize(size, box=…)` with a fractional box, up to rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def crop(pixels: Tensor, box: Tensor, mirror: Tensor, side: int, sizes: Tensor | None = None) -> Tensor:
    """Return float N×C×side×side in [0, 1] of uint8 pixels N×H×W×C.

    box: N×4 as top, left, height, width in pixels; mirror: N, non-zero flips left and right; sizes: N×2 true heights
    and widths where the images are padded at the bottom and the right.
    """
    count, height, width, channels = pixels.shape
    top, left, tall, wide = box.unbind(1)
    rows = _triangle_filters(top, tall, side, height, None if sizes is None else sizes[:, 0], total=1 / 255)
    columns = _triangle_filters(left, wide, side, width, None if sizes is None else sizes[:, 1], mirror)
    image = torch.bmm(rows, pixels.reshape(count, height, width * channels).float())  # N×S×(W·C)
    image = image.view(count, side, width, channels).permute(0, 3, 1, 2).reshape(count, channels * side, width)
    return torch.bmm(image, columns.transpose(1, 2)).view(count, channels, side, side)


def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Return the images under an output-to-input map, bilinear, black outside.

    matrix: N×6, rows (a, b, c), (d, e, f) on coordinates that run from -1 to 1 over the image: x' = a·x + b·y + c.
    """
    count, _, height, width = images.shape
    a, b, c, d, e, f = (column[:, None, None] for column in matrix.unbind(1))
    y = _pixel_centres(height, images.device)[:, None]
    x = _pixel_centres(width, images.device)[None, :]
    grid = images.new_empty(count, height, width, 2)
    grid[..., 0] = a * x + b * y + c
    grid[..., 1] = d * x + e * y + f
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Return the images under a Gaussian of 2·radius+1 taps; sigma: N, in pixels; edges are reflected."""
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)  # N×taps
    padded = F.pad(images, (radius, radius, radius, radius), mode="reflect")
    return _correlate(_correlate(padded, weights, 2), weights, 3)


def _triangle_filters(
    start: Tensor,
    length: Tensor,
    side: int,
    size: int,
    limit: Tensor | None,
    mirror: Tensor | None = None,
    total: float = 1.0,
) -> Tensor:
    """The weights of the pixels in each output over start … start+length, N×side×size; each output's sum is `total`."""
    step = length / side
    reach = step.clamp_min(1).reciprocal_()
    order = torch.arange(side, device=start.device, dtype=start.dtype) + 0.5
    if mirror is not None:
        order = torch.where(mirror[:, None] != 0, side - order, order)
    centre = (start[:, None] + order * step[:, None]) * reach[:, None]  # N×side
    pixel = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5
    weights = (pixel * reach[:, None])[:, None, :] - centre[:, :, None]
    weights.abs_().neg_().add_(1).clamp_min_(0)
    if limit is not None:
        weights.mul_((pixel < limit[:, None])[:, None, :])
    return weights.div_(weights.sum(2, keepdim=True).div_(total))


def _correlate(images: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Correlate along `dim` without padding; weights: N×taps."""
    taps = weights.shape[1]
    length = images.shape[dim] - taps + 1
    total = torch.zeros_like(images.narrow(dim, 0, length))
    for tap in range(taps):
        total.add_(images.narrow(dim, tap, length) * weights[:, tap, None, None, None])
    return total


def _pixel_centres(size: int, device: torch.device) -> Tensor:
    """The pixel centres on [-1, 1]."""
    return (torch.arange(size, device=device, dtype=torch.float32) * 2 + 1) / size - 1
