"""Augmentation pipeline: random views of a batch of images, on the images' device.

A view is a function of (seed, epoch, image, view): on the CPU its bytes are the same in any batch and with any number
of threads. The steps are SimCLR's (arXiv:2002.05709, appendix A): crop and flip, [affine map], colour jitter in random
order, greyscale, blur, [solarize, as BYOL], then [gamma, noise] for images with little colour.
"""

import torch
from torch import Tensor

from ssl_core import rng
from ssl_core.augment import colour, geometry
from ssl_core.augment.parameters import (
    BRIGHTNESS,
    CONTRAST,
    NO_JITTER,
    SATURATION,
    ViewParameters,
    draw_parameters,
    has_affine,
)
from ssl_core.config import Views
from ssl_core.data.image_batch import CanvasGroup, ImageBatch

# The size of a chunk on a CPU, in pixels and at least in images: its tensors stay in the cache.
_CHUNK_PIXELS, _CHUNK_IMAGES = 64 * 32 * 32, 16


class ViewMaker:
    """Makes views of side `size_out` with the augmentation `views`."""

    def __init__(self, views: Views, size_out: int, seed: int) -> None:
        self._views = views
        self._side = size_out
        self._seed = seed

    @torch.no_grad()
    def __call__(self, images: ImageBatch, indices: Tensor, epoch: int, view: int) -> Tensor:
        """Return float32 N×3×S×S in [0, 1].

        indices: int64 N on the CPU, the images' rows in the dataset; view: the number of the view, from 0.
        """
        keys = rng.keys(rng.stream(self._seed, epoch, view), indices.cpu())
        noise_keys = rng.keys(rng.stream(self._seed, epoch, view, rng.Stream.NOISE), indices.cpu())
        parameters = draw_parameters(self._views, keys, images.sizes())
        # Sorted by the position of hue, so that each position is a slice and no pixel is gathered for it.
        out = torch.empty(len(images), 3, self._side, self._side, device=images.device)
        for group in images.groups:
            order = torch.argsort(parameters.hue_position[group.indices], stable=True)
            for local in order.split(self._chunk(group)):
                rows = group.indices[local]
                made = self._render(group, local, parameters.take(rows), noise_keys[rows])
                out.index_copy_(0, rows.to(out.device), made)
        return out

    def _chunk(self, group: CanvasGroup) -> int:
        """The number of images in a chunk."""
        if group.pixels.device.type != "cpu":
            return len(group.indices)
        _, height, width, _ = group.pixels.shape
        return max(_CHUNK_IMAGES, _CHUNK_PIXELS // max(height * width, self._side**2))

    def _render(self, group: CanvasGroup, local: Tensor, drawn: ViewParameters, noise_keys: Tensor) -> Tensor:
        """Return the views of a group's images `local`; `drawn` and `noise_keys` are theirs, on the CPU."""
        device = group.pixels.device
        here = drawn.take(torch.arange(len(local)), device) if device.type != "cpu" else drawn
        where = local.to(device)
        sizes = None if group.sizes is None else group.sizes[where]
        images = geometry.crop(group.pixels.index_select(0, where), here.box, here.mirror, self._side, sizes)
        if has_affine(self._views):
            images = geometry.affine(images, here.affine)
        if self._views.jitter > 0:
            self._jitter_(images, drawn.hue_position, here)
        self._grey_(images, drawn.grey)
        self._blur_(images, drawn.blur, here.sigma)
        self._solarize_(images, drawn.solarize)
        if self._views.gamma > 0:
            images = colour.adjust_gamma_(images, here.gamma)
        if self._views.noise > 0:
            noise = rng.normals(noise_keys.to(device), images[0].numel())
            images.add_(noise.view_as(images).mul_(self._views.noise)).clamp_(0, 1)
        return images

    def _jitter_(self, images: Tensor, hue_position: Tensor, here: ViewParameters) -> None:
        """Apply brightness, contrast and saturation in each sample's order, and hue at its position among them."""
        counts = torch.bincount(hue_position, minlength=NO_JITTER + 1).tolist()
        jittered = len(images) - counts[NO_JITTER]
        mean_share = (1 - here.factors) * (here.order == CONTRAST)
        grey_share = (1 - here.factors) * (here.order == SATURATION)
        end = 0
        for position in range(NO_JITTER):
            start, end = end, end + counts[position]
            if end > start and self._views.hue * self._views.jitter_strength > 0:
                colour.adjust_hue_(images[start:end], here.hue[start:end])
            if position < 3 and jittered:
                if self._views.brightness_added:
                    added = here.offset * (here.order[:, position] == BRIGHTNESS)
                    images[:jittered].add_(added[:jittered, None, None, None])
                factors = (share[:jittered, position] for share in (here.factors, mean_share, grey_share))
                colour.blend_(images[:jittered], *factors)

    def _grey_(self, images: Tensor, chosen: Tensor) -> None:
        rows = chosen.nonzero()[:, 0].to(images.device)
        if len(rows):
            luma = colour.compute_luma(images[rows])
            images.index_copy_(0, rows, luma[:, None].expand(-1, 3, -1, -1))

    def _blur_(self, images: Tensor, chosen: Tensor, sigma: Tensor) -> None:
        rows = chosen.nonzero()[:, 0].to(images.device)
        radius = max(1, self._side // 20)
        if len(rows):
            images.index_copy_(0, rows, geometry.blur(images[rows], sigma[rows], radius))

    def _solarize_(self, images: Tensor, chosen: Tensor) -> None:
        rows = chosen.nonzero()[:, 0].to(images.device)
        if len(rows):
            picked = images[rows]
            images.index_copy_(0, rows, torch.where(picked >= 0.5, 1 - picked, picked))
