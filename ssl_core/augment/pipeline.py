"""The view maker: random views of a batch of images, on the device where the images are.

What happens to an image depends on (seed, epoch, image, view) alone: on the CPU its view has the same bytes alone, in
any batch and with any number of threads. The steps are SimCLR's (arXiv:2002.05709, appendix A): crop and flip, [affine
map], colour jitter in random order, grey, blur, [solarize, as BYOL], then [gamma, noise], which is for images where
colour says little.
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

# So many pixels, and not fewer images, pass through all steps together on a CPU: they stay in its cache.
_CHUNK_PIXELS, _CHUNK_IMAGES = 64 * 32 * 32, 16


class ViewMaker:
    """Makes views of side `size_out` as `views` says."""

    def __init__(self, views: Views, size_out: int, seed: int) -> None:
        self._views = views
        self._side = size_out
        self._seed = seed

    @torch.no_grad()
    def __call__(self, images: ImageBatch, indices: Tensor, epoch: int, view: int) -> Tensor:
        """Return float32 N×3×S×S in [0, 1].

        indices: int64 N on the CPU, the images' rows in the dataset; view: which of the image's, from 0.
        """
        keys = rng.keys(rng.stream(self._seed, epoch, view), indices.cpu())
        noise_keys = rng.keys(rng.stream(self._seed, epoch, view, rng.Stream.NOISE), indices.cpu())
        parameters = draw_parameters(self._views, keys, images.sizes())
        # Neighbours want hue at the same place, so that each place is a slice and no pixel is gathered for it.
        out = torch.empty(len(images), 3, self._side, self._side, device=images.device)
        for group in images.groups:
            order = torch.argsort(parameters.hue_position[group.rows], stable=True)
            for local in order.split(self._chunk(group)):
                rows = group.rows[local]
                made = self._render(group, local, parameters.take(rows), noise_keys[rows])
                out.index_copy_(0, rows.to(out.device), made)
        return out

    def _chunk(self, group: CanvasGroup) -> int:
        """How many images pass through all steps together."""
        if group.pixels.device.type != "cpu":
            return len(group.rows)
        _, height, width, _ = group.pixels.shape
        return max(_CHUNK_IMAGES, _CHUNK_PIXELS // max(height * width, self._side**2))

    def _render(self, group: CanvasGroup, local: Tensor, drawn: ViewParameters, noise_keys: Tensor) -> Tensor:
        """Views of the images `local` of a group; `drawn` and `noise_keys` are on the CPU and belong to them."""
        device = group.pixels.device
        here = drawn.take(torch.arange(len(local)), device) if device.type != "cpu" else drawn
        where = local.to(device)
        sizes = None if group.sizes is None else group.sizes[where]
        images = geometry.crop(group.pixels.index_select(0, where), here.box, here.mirror, self._side, sizes)
        if has_affine(self._views):
            images = geometry.affine(images, here.affine)
        if self._views.jitter > 0:
            self._jitter_(images, drawn.hue_position, here)
        self._drop_colour_(images, drawn.grey)
        self._blur_(images, drawn.blur, here.sigma)
        self._solarize_(images, drawn.solarize)
        if self._views.gamma > 0:
            images = colour.adjust_gamma_(images, here.gamma)
        if self._views.noise > 0:
            noise = rng.normals(noise_keys.to(device), images[0].numel())
            images.add_(noise.view_as(images).mul_(self._views.noise)).clamp_(0, 1)
        return images

    def _jitter_(self, images: Tensor, places: Tensor, here: ViewParameters) -> None:
        """Brightness, contrast and saturation in each sample's own order, hue at its own place between them."""
        counts = torch.bincount(places, minlength=NO_JITTER + 1).tolist()
        jittered = len(images) - counts[NO_JITTER]
        mean_share = (1 - here.factors) * (here.order == CONTRAST)
        grey_share = (1 - here.factors) * (here.order == SATURATION)
        end = 0
        for place in range(NO_JITTER):
            start, end = end, end + counts[place]
            if end > start and self._views.hue * self._views.jitter_strength > 0:
                colour.adjust_hue_(images[start:end], here.hue[start:end])
            if place < 3 and jittered:
                if self._views.brightness_added:
                    added = here.offset * (here.order[:, place] == BRIGHTNESS)
                    images[:jittered].add_(added[:jittered, None, None, None])
                factors = (share[:jittered, place] for share in (here.factors, mean_share, grey_share))
                colour.blend_(images[:jittered], *factors)

    def _drop_colour_(self, images: Tensor, chosen: Tensor) -> None:
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
