"""Pixels: a batch of uint8 images, of one size or of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class CanvasGroup:
    """Images of a batch that share a canvas, padded at the bottom and the right where `sizes` says so."""

    rows: Tensor  # int64 n, on the CPU: their places in the batch
    pixels: Tensor  # uint8 n×H×W×3
    sizes: Tensor | None = None  # int64 n×2: true heights and widths; None: all fill the canvas

    def to(self, device: torch.device) -> "CanvasGroup":
        sizes = None if self.sizes is None else self.sizes.to(device, non_blocking=True)
        return CanvasGroup(self.rows, self.pixels.to(device, non_blocking=True), sizes)


@dataclass(frozen=True)
class ImageBatch:
    """A batch; its images stay in groups by canvas, so that no image is padded because of another one."""

    groups: Sequence[CanvasGroup]
    count: int

    @classmethod
    def of_pixels(cls, pixels: Tensor) -> "ImageBatch":
        """A batch of one size: uint8 N×H×W×3."""
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

    def take(self, places: Tensor) -> "ImageBatch":
        """Return the batch of the images at those places (int64 n, on the CPU)."""
        group_of, slot_of = self._where
        groups = []
        for number, group in enumerate(self.groups):
            rows = (group_of[places] == number).nonzero()[:, 0]
            if len(rows):
                slots = slot_of[places[rows]].to(group.pixels.device)
                sizes = None if group.sizes is None else group.sizes[slots]
                groups.append(CanvasGroup(rows, group.pixels.index_select(0, slots), sizes))
        return ImageBatch(tuple(groups), len(places))

    def sizes(self) -> Tensor:
        """Return float32 N×2, on the CPU: each image's true height and width."""
        found = torch.empty(self.count, 2)
        for group in self.groups:
            whole = torch.tensor(group.pixels.shape[1:3], dtype=torch.float32)
            found[group.rows] = whole if group.sizes is None else group.sizes.to("cpu", torch.float32)
        return found

    @cached_property
    def _where(self) -> tuple[Tensor, Tensor]:
        """For each place, the number of its group and its slot there."""
        group_of, slot_of = torch.empty(self.count, dtype=torch.int64), torch.empty(self.count, dtype=torch.int64)
        for number, group in enumerate(self.groups):
            group_of[group.rows] = number
            slot_of[group.rows] = torch.arange(len(group.rows))
        return group_of, slot_of
