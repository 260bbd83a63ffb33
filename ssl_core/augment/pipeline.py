"""Augmentation pipeline: random views of a batch of images, on the images' device.

A view is a function of (seed, epoch, image, view): on the CPU its bytes are the same in any batch and with any number
of threads. The steps are SimCLR's (arXiv:2002.05709, appendix A): crop and flip, [affine map], colour jitter in random
order, greyscale, blur, [solarize, as BYOL], then [gamma, noise] for images with little colour. Images of other than 3
channels have no saturation, hue and greyscale; all else is done to each channel.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_core import rng
from ssl_core.augment import colour, geometry, plan
from ssl_core.augment.parameters import NO_JITTER, draw_parameters, has_affine
from ssl_core.augment.plan import Chunk, Part, Plan, Table
from ssl_core.compiler import compile_once
from ssl_core.config import Views
from ssl_core.config.views import RGB, leave_out_colour
from ssl_core.data.image_batch import ImageBatch

_JITTER = ("hue_position", "hue", "added", "keep", "mean_share", "grey_share", "grey")  # of `colour.jitter`


class ViewMaker:
    """Makes views of side `size_out` with the augmentation `views`."""

    def __init__(
        self, views: Views, size_out: int, seed: int, *, channels: int = RGB, is_compiled: bool = False
    ) -> None:
        """channels: of the images.

        is_compiled: fuse the colour operations, for a GPU; pixels are within 1/255 of those of the plain ones.
        """
        self._views = leave_out_colour(views, channels)
        self._channels = channels
        self._side = size_out
        self._seed = seed
        self._jitter = compile_once(colour.jitter) if is_compiled else None

    def __call__(self, images: ImageBatch, indices: Tensor, epoch: int, view: int) -> Tensor:
        """Return float32 N×C×S×S in [0, 1].

        indices: int64 N on the CPU, the images' rows in the dataset; view: the number of the view, from 0.
        """
        return self.render(images, self.draw(images, indices, epoch, (view,)))

    def draw(
        self, images: ImageBatch, indices: Tensor, epoch: int, views: Sequence[int], device: torch.device | None = None
    ) -> Plan:
        """Return the plan of several views of each image, by their numbers; device: to render on, if not the images'.

        Nothing is computed on the device.
        """

        def draw_keys(*names: int) -> Tensor:
            streams = (rng.stream(self._seed, epoch, view, *names) for view in views)
            return torch.cat([rng.keys(stream, indices) for stream in streams])

        parameters = draw_parameters(self._views, draw_keys(), images.sizes().repeat(len(views), 1))
        noise_keys = draw_keys(rng.Stream.NOISE) if self._views.noise > 0 else None
        return plan.arrange(parameters, noise_keys, images, self._side, device or images.device)

    @torch.no_grad()
    def render(self, images: ImageBatch, drawn: Plan) -> Tensor:
        """Return the views of a plan for these images, float32 V·N×C×S×S in [0, 1], by view and then image."""
        out = torch.empty(drawn.count, self._channels, self._side, self._side, device=images.device)
        for chunk in drawn.to(images.device).chunks:
            out.index_copy_(0, chunk.target, self._render(images, chunk))
        return out

    def _render(self, images: ImageBatch, chunk: Chunk) -> Tensor:
        table, views = chunk.table, self._crop(images, chunk)
        if has_affine(self._views):
            views = geometry.affine(views, table["affine"])
        if self._jitter is not None and self._views.jitter > 0:
            views = self._jitter(views, *(table[name] for name in _JITTER))
        else:
            self._jitter_(views, chunk.hue_counts, table)
            self._grey_(views, chunk.grey)
        self._blur_(views, chunk.blur, table["sigma"])
        self._solarize_(views, chunk.solarize)
        if self._views.gamma > 0:
            views = colour.adjust_gamma_(views, table["gamma"])
        if chunk.noise_keys is not None:
            noise = rng.normals(chunk.noise_keys, views[0].numel())
            views.add_(noise.view_as(views).mul_(self._views.noise)).clamp_(0, 1)
        return views

    def _crop(self, images: ImageBatch, chunk: Chunk) -> Tensor:
        """Crop and flip, canvas by canvas; all later steps take the whole chunk."""
        if chunk.parts[0].members is None:
            return self._crop_part(images, chunk.parts[0], chunk.table)
        views = torch.empty(len(chunk.target), self._channels, self._side, self._side, device=images.device)
        for part in chunk.parts:
            assert part.members is not None
            views.index_copy_(0, part.members, self._crop_part(images, part, chunk.table.take(part.members)))
        return views

    def _crop_part(self, images: ImageBatch, part: Part, table: Table) -> Tensor:
        group = images.groups[part.group]
        sizes = None if group.sizes is None else table["size"]
        pixels = group.pixels.index_select(0, part.pixels)
        return geometry.crop(pixels, table["box"], table["mirror"], self._side, sizes)

    def _jitter_(self, views: Tensor, hue_counts: Sequence[int], table: Table) -> None:
        """Apply brightness, contrast and saturation in each view's order, and hue at its position among them."""
        if self._views.jitter == 0:
            return
        jittered, end = len(views) - hue_counts[NO_JITTER], 0
        for position in range(NO_JITTER):
            start, end = end, end + hue_counts[position]
            if end > start and self._views.hue * self._views.jitter_strength > 0:
                colour.adjust_hue_(views[start:end], table["hue"][start:end])
            if position < 3 and jittered:
                if self._views.brightness_added:
                    views[:jittered].add_(table["added"][:jittered, position, None, None, None])
                shares = (table[name][:jittered, position] for name in ("keep", "mean_share", "grey_share"))
                colour.blend_(views[:jittered], *shares)

    def _grey_(self, views: Tensor, chosen: Tensor) -> None:
        if len(chosen):
            luma = colour.compute_luma(views[chosen])
            views.index_copy_(0, chosen, luma[:, None].expand(-1, 3, -1, -1))

    def _blur_(self, views: Tensor, chosen: Tensor, sigma: Tensor) -> None:
        radius = max(1, self._side // 20)
        if len(chosen):
            views.index_copy_(0, chosen, geometry.blur(views[chosen], sigma[chosen], radius))

    def _solarize_(self, views: Tensor, chosen: Tensor) -> None:
        if len(chosen):
            picked = views[chosen]
            views.index_copy_(0, chosen, torch.where(picked >= 0.5, 1 - picked, picked))
