"""Image batches: uint8 images of one size or of several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class CanvasGroup:
    """Images of a batch on canvases of one size, padded at the bottom and the right up to it."""

    indices: Tensor  # int64 n, on the CPU: their positions in the batch
    pixels: Tensor  # uint8 m×H×W×3, on the batch's device
    sizes: Tensor | None = None  # int64 n×2, on the CPU: true heights and widths; None: all fill the canvas
    rows: Tensor | None = None  # int64 n, on the CPU: where the images are in `pixels`; None: all, in order

    def gather(self) -> Tensor:
        """Return the group's images, uint8 n×H×W×3, copied if they are not all of `pixels`."""
        return self.pixels if self.rows is None else self.pixels.index_select(0, self.rows.to(self.pixels.device))

    def copy_to(self, pixels: Tensor) -> "CanvasGroup":
        """Copy the group's images to `pixels`, uint8 n×H×W×3, on the CPU as they are, and return the group of these."""
        if self.rows is None:
            pixels.copy_(self.pixels)
        else:
            torch.index_select(self.pixels, 0, self.rows, out=pixels)
        return CanvasGroup(self.indices, pixels, self.sizes)

    def to(self, device: torch.device) -> "CanvasGroup":
        return replace(self, pixels=self.pixels.to(device, non_blocking=True))  # waits unless it is pinned

    def take(self, indices: Tensor, members: Tensor) -> "CanvasGroup":
        """Return the images at `members` of the group, int64 n, which are at `indices` in another batch."""
        rows = members if self.rows is None else self.rows[members]
        return CanvasGroup(indices, self.pixels, None if self.sizes is None else self.sizes[members], rows)


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images, grouped by canvas size, so that padding does not depend on the batch."""

    groups: Sequence[CanvasGroup]
    count: int

    @classmethod
    def of_pixels(cls, pixels: Tensor) -> "ImageBatch":
        """Return the batch of images of one size, uint8 N×H×W×3."""
        return cls((CanvasGroup(torch.arange(len(pixels)), pixels),), len(pixels))

    @property
    def device(self) -> torch.device:
        return self.groups[0].pixels.device

    def __len__(self) -> int:
        return self.count

    def pin(self) -> "ImageBatch":
        """Return the batch, of the CPU, in pinned memory: `to` then does not wait for the copy to a GPU.

        No image is copied that is in pinned memory already.
        """
        if all(group.rows is None and group.pixels.is_pinned() for group in self.groups):
            return self
        shapes = [(len(group.indices), *group.pixels.shape[1:]) for group in self.groups]
        blocks = zip(self.groups, allocate_pixels(shapes, pinned=True), strict=True)
        return ImageBatch(tuple(group.copy_to(pixels) for group, pixels in blocks), self.count)

    def to(self, device: torch.device) -> "ImageBatch":
        if device.type == self.device.type:
            return self
        return ImageBatch(tuple(group.to(device) for group in self.groups), self.count)

    def take(self, indices: Tensor) -> "ImageBatch":
        """Return the batch of the images at the indices (int64 n, on the CPU); no pixel is copied."""
        group_of, member_of = (found[indices] for found in self._places)
        groups = []
        for number, group in enumerate(self.groups):
            places = (group_of == number).nonzero()[:, 0]
            if len(places):
                groups.append(group.take(places, member_of[places]))
        return ImageBatch(tuple(groups), len(indices))

    def sizes(self) -> Tensor:
        """Return float32 N×2, on the CPU: each image's true height and width."""
        found = torch.empty(self.count, 2)
        for group in self.groups:
            canvas = torch.tensor(group.pixels.shape[1:3], dtype=torch.float32)
            found[group.indices] = canvas if group.sizes is None else group.sizes.float()
        return found

    @cached_property
    def locations(self) -> tuple[Tensor, Tensor]:
        """The group of each image and its row in that group's pixels, int64 N each, on the CPU."""
        group_of, member_of = self._places
        row_of = member_of.clone()
        for group in self.groups:
            if group.rows is not None:
                row_of[group.indices] = group.rows
        return group_of, row_of

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """The group of each image and its index within that group, int64 N each."""
        group_of, member_of = torch.empty(self.count, dtype=torch.int64), torch.empty(self.count, dtype=torch.int64)
        for number, group in enumerate(self.groups):
            group_of[group.indices] = number
            member_of[group.indices] = torch.arange(len(group.indices))
        return group_of, member_of


def allocate_pixels(shapes: Sequence[Sequence[int]], *, pinned: bool) -> list[Tensor]:
    """Return uint8 tensors of the shapes, not initialised: parts of one block of host memory.

    Pinned blocks are reused by torch's allocator: a copy to a GPU that does not block leaves its stream with the block,
    and the block, when its last tensor is gone, is handed out again only after what that stream had to do by then
    (ATen/core/CachingHostAllocator.h). Sizes are rounded up to powers of two, so the batches of a run, as one block
    each, take turns in a few of them, and no pinned memory is allocated after the first steps.
    """
    sizes = [math.prod(shape) for shape in shapes]
    block = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pinned)
    return [part.view(*shape) for part, shape in zip(block.split(sizes), shapes, strict=True)]
