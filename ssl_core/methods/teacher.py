"""A teacher: a frozen classifier, and what it makes of the views that a student is shown."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.device import autocast, memory_format
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.serialization import saved_model


@dataclass(frozen=True)
class Teacher:
    """It is no part of the student's state: a run that goes on is given the same model again."""

    encoder: Encoder
    student: Preprocessing

    @classmethod
    def of(cls, model: Path, student: Preprocessing, device: str, precision: str) -> "Teacher":
        """student: how the views are normalised. Raises BadModel."""
        return cls(saved_model.load(model, device, precision=precision), student)

    @torch.no_grad()
    def __call__(self, view: Tensor) -> Tensor:
        """Return the logits N×C of a student's view N×3×S×S, seen at the teacher's own size and normalisation."""
        side = self.encoder.image_size
        pixels = self.student.denormalise(view.float())
        if pixels.shape[-1] != side:
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True, align_corners=False)
        layout = memory_format(view.device, self.encoder.precision)
        images = self.encoder.preprocessing.normalise_(pixels).contiguous(memory_format=layout)
        with autocast(view.device, self.encoder.precision):
            return self.encoder(images, "logits").float()
