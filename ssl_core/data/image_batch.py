"""Image batches: uint8 images of one size or of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class CanvasGroup:
    """Images of a batch on canvases of one size, padded at the bottom and the right up to it."""

    indices: Tensor  # int64 n, on the CPU: their positions in the batch
    pixels: Tensor  # uint8 n×H×W×3
    sizes: Tensor | None = None  # int64 n×2: true heights and widths; None: all fill the canvas

    def to(self, device: torch.device) -> "CanvasGroup":
        sizes = None if self.sizes is None else self.sizes.to(device, non_blocking=True)
        return CanvasGroup(self.indices, self.pixels.to(device, non_blocking=True), sizes)


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

    def to(self, device: torch.device) -> "ImageBatch":
        return (
            self if device == self.device else ImageBatch(tuple(group.to(device) for group in self.groups), self.count)
        )

    def take(self, indices: Tensor) -> "ImageBatch":
        """Return the batch of the images at the indices (int64 n, on the CPU)."""
        group_of, slot_of = self._locations
        groups = []
        for number, group in enumerate(self.groups):
            members = (group_of[indices] == number).nonzero()[:, 0]
            if len(members):
                slots = slot_of[indices[members]].to(group.pixels.device)
                sizes = None if group.sizes is None else group.sizes[slots]
                groups.append(CanvasGroup(members, group.pixels.index_select(0, slots), sizes))
        return ImageBatch(tuple(groups), len(indices))

    def sizes(self) -> Tensor:
        """Return float32 N×2, on the CPU: each image's true height and width."""
        found = torch.empty(self.count, 2)
        for group in self.groups:
            canvas = torch.tensor(group.pixels.shape[1:3], dtype=torch.float32)
            found[group.indices] = canvas if group.sizes is None else group.sizes.to("cpu", torch.float32)
        return found

    @cached_property
    def _locations(self) -> tuple[Tensor, Tensor]:
        """The group of each image and its index within that group, int64 N each."""
        group_of, slot_of = torch.empty(self.count, dtype=torch.int64), torch.empty(self.count, dtype=torch.int64)
        for number, group in enumerate(self.groups):
            group_of[group.indices] = number
            slot_of[group.indices] = torch.arange(len(group.indices))
        return group_of, slot_of
