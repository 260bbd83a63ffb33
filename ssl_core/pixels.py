"""Pixels: a batch of uint8 images, of one size or of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Images of a batch that share a canvas: uint8 n×H×W×3, padded at the bottom and the right where `sizes` says so."""

    rows: Tensor  # int64 n: their places in the batch
    pixels: Tensor
    sizes: Tensor | None = None  # int64 n×2: true heights and widths; None: all fill the canvas


@dataclass(frozen=True)
class Pixels:
    """A batch; its images stay in groups by canvas, so that no image is padded because of another one."""

    groups: Sequence[Group]
    count: int

    @classmethod
    def whole(cls, pixels: Tensor) -> "Pixels":
        """A batch of one size: uint8 N×H×W×3."""
        return cls((Group(torch.arange(len(pixels)), pixels),), len(pixels))

    @property
    def device(self) -> torch.device:
        return self.groups[0].pixels.device

    def __len__(self) -> int:
        return self.count

    def sizes(self) -> Tensor:
        """float32 N×2, on the CPU: each image's true height and width."""
        found = torch.empty(self.count, 2)
        for group in self.groups:
            whole = torch.tensor(group.pixels.shape[1:3], dtype=torch.float32)
            found[group.rows] = whole if group.sizes is None else group.sizes.to("cpu", torch.float32)
        return found
